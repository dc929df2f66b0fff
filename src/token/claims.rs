//! What a token says: the head that the vault wrote, and the narrowings that holders added.

use std::str;

use super::fields::Fields;
use super::{LAST_SECOND, MAX_SUBJECTS, tlv};
use crate::actor::{Actor, ActorKind, Ground};
use crate::error::{Denied, Malformed, Result, Unsupported};

/// The vault's own claims.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(crate) struct Head {
    pub(crate) id: [u8; 16],
    pub(crate) vault: [u8; 16],
    pub(crate) purpose: u16,
    pub(crate) actor: Actor,
    pub(crate) ground: Ground,
    pub(crate) not_before: i64,
    pub(crate) expires: i64,
    /// Hints, ascending; `None` for every subject.
    pub(crate) subjects: Option<Vec<[u8; 16]>>,
    /// `None` for every field.
    pub(crate) fields: Option<Fields>,
}

impl Head {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        tlv::put(&mut out, 1, &self.id);
        tlv::put(&mut out, 2, &self.vault);
        tlv::put(&mut out, 3, &self.purpose.to_be_bytes());
        tlv::put(&mut out, 4, &encode_actor(&self.actor));
        tlv::put(&mut out, 5, self.ground.code().as_bytes());
        tlv::put(&mut out, 6, &self.not_before.to_be_bytes());
        tlv::put(&mut out, 7, &self.expires.to_be_bytes());
        if let Some(subjects) = &self.subjects {
            tlv::put(&mut out, 8, subjects.as_flattened());
        }
        if let Some(fields) = &self.fields {
            tlv::put(&mut out, 9, &fields.encode());
        }
        out
    }

    pub(crate) fn decode(block: &[u8]) -> Result<Self> {
        let mut claims = tlv::Claims::new(block);
        let mut required = |expected: u8| match claims.next()? {
            Some((tag, value)) if tag == expected => Ok(value),
            Some((tag, _)) if tag > 9 => Err(Unsupported::Version.into()),
            _ => Err(crate::error::Error::Malformed(Malformed::Content)),
        };
        let id = tlv::fixed(required(1)?)?;
        let vault = tlv::fixed(required(2)?)?;
        let purpose = u16::from_be_bytes(tlv::fixed(required(3)?)?);
        let actor = decode_actor(required(4)?)?;
        let ground = decode_ground(required(5)?)?;
        let not_before = decode_second(required(6)?)?;
        let expires = decode_second(required(7)?)?;
        if not_before >= expires {
            return Err(Malformed::Content.into());
        }
        let mut head =
            Head { id, vault, purpose, actor, ground, not_before, expires, subjects: None, fields: None };
        while let Some((tag, value)) = claims.next()? {
            match tag {
                8 => head.subjects = Some(tlv::ascending(value, 1, MAX_SUBJECTS)?),
                9 => head.fields = Some(Fields::decode(value)?),
                _ => return Err(Unsupported::Version.into()),
            }
        }
        Ok(head)
    }
}

/// What one narrowing takes away, and whom it names.
#[derive(Clone, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(crate) struct Cut {
    pub(crate) expires: Option<i64>,
    pub(crate) not_before: Option<i64>,
    pub(crate) subject: Option<[u8; 16]>,
    pub(crate) fields: Option<Fields>,
    pub(crate) actor: Option<Actor>,
}

impl Cut {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(expires) = self.expires {
            tlv::put(&mut out, 1, &expires.to_be_bytes());
        }
        if let Some(not_before) = self.not_before {
            tlv::put(&mut out, 2, &not_before.to_be_bytes());
        }
        if let Some(subject) = &self.subject {
            tlv::put(&mut out, 3, subject);
        }
        if let Some(fields) = &self.fields {
            tlv::put(&mut out, 4, &fields.encode());
        }
        if let Some(actor) = &self.actor {
            tlv::put(&mut out, 5, &encode_actor(actor));
        }
        out
    }

    pub(crate) fn decode(block: &[u8]) -> Result<Self> {
        let mut claims = tlv::Claims::new(block);
        let mut cut = Cut::default();
        while let Some((tag, value)) = claims.next()? {
            match tag {
                1 => cut.expires = Some(decode_second(value)?),
                2 => cut.not_before = Some(decode_second(value)?),
                3 => cut.subject = Some(tlv::fixed(value)?),
                4 => cut.fields = Some(Fields::decode(value)?),
                5 => cut.actor = Some(decode_actor(value)?),
                // A limit that is not understood must not be passed over.
                _ => return Err(Unsupported::Version.into()),
            }
        }
        if cut == Cut::default() { Err(Malformed::Content.into()) } else { Ok(cut) }
    }
}

/// What is left after the narrowings so far. The one place that says what "wider" means: the holder asks it before it
/// narrows, and the vault when it verifies.
pub(crate) struct Reach<'a> {
    pub(crate) not_before: i64,
    pub(crate) expires: i64,
    pub(crate) fields: Option<&'a Fields>,
}

impl<'a> Reach<'a> {
    pub(crate) fn of(head: &'a Head) -> Self {
        Reach { not_before: head.not_before, expires: head.expires, fields: head.fields.as_ref() }
    }

    pub(crate) fn after(head: &'a Head, cuts: &'a [Cut]) -> Result<Self, Denied> {
        let mut reach = Self::of(head);
        cuts.iter().try_for_each(|cut| reach.cut(cut))?;
        Ok(reach)
    }

    pub(crate) fn cut(&mut self, cut: &'a Cut) -> Result<(), Denied> {
        let later_end = cut.expires.is_some_and(|expires| expires > self.expires);
        let earlier_start = cut.not_before.is_some_and(|not_before| not_before < self.not_before);
        let more_fields = match (&cut.fields, self.fields) {
            (Some(asked), Some(had)) => !asked.within(had),
            _ => false,
        };
        if later_end || earlier_start || more_fields {
            return Err(Denied::Wider);
        }
        self.expires = cut.expires.unwrap_or(self.expires);
        self.not_before = cut.not_before.unwrap_or(self.not_before);
        self.fields = cut.fields.as_ref().or(self.fields);
        Ok(())
    }
}

/// kind ‖ name
pub(crate) fn encode_actor(actor: &Actor) -> Vec<u8> {
    let mut out = vec![actor.kind().number()];
    out.extend_from_slice(actor.name().as_bytes());
    out
}

pub(crate) fn decode_actor(value: &[u8]) -> Result<Actor> {
    let (kind, name) = value.split_first().ok_or(Malformed::Length)?;
    let kind = ActorKind::from_number(*kind).ok_or(Unsupported::Version)?;
    let name = str::from_utf8(name).map_err(|_| Malformed::Content)?;
    Actor::new(kind, name).map_err(|_| Malformed::Content.into())
}

pub(crate) fn decode_ground(value: &[u8]) -> Result<Ground> {
    let code = str::from_utf8(value).map_err(|_| Malformed::Content)?;
    Ground::new(code).map_err(|_| Malformed::Content.into())
}

fn decode_second(value: &[u8]) -> Result<i64> {
    let second = i64::from_be_bytes(tlv::fixed(value)?);
    if (0..=LAST_SECOND).contains(&second) { Ok(second) } else { Err(Malformed::Content.into()) }
}
