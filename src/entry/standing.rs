//! The bytes of what stands of a subject. The format is in docs/SPEC.md, "Entry".

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::{Forgotten, Generation, Held, Meta, Standing};
use crate::clock::Day;
use crate::consent::Evidence;
use crate::error::{Malformed, Result, Unsupported};
use crate::wire::{Put as _, Reader};

/// Of an entry that lies where its subject was enrolled, under the lookup key that the vault was made with.
const VERSION: u8 = 1;
/// Of one that says more of where it lies.
const PLACED: u8 = 2;

impl Meta {
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::new());
        let placed = self.lookup != 0;
        out.put_u8(if placed { PLACED } else { VERSION });
        if placed {
            out.put_u16(self.lookup);
            out.put_u8(u8::try_from(self.left.len()).unwrap_or(u8::MAX));
            for (place, open) in &self.left {
                out.put(place);
                out.put_u8((*open).into());
            }
        }
        out.put_u64(self.state);
        out.put_u8(self.held.is_some().into());
        if let Some(held) = &self.held {
            out.put(&held.serial);
            out.put_i64(held.since_ms);
            out.put_bytes(held.ground.as_bytes());
        }
        out.put_u16(u16::try_from(self.generations.len()).unwrap_or(u16::MAX));
        for generation in &self.generations {
            out.put_u16(generation.number);
            out.put(&generation.serial);
            out.put_i64(generation.enrolled_ms);
            out.put_u8(generation.forgotten.is_some().into());
            if let Some(forgotten) = &generation.forgotten {
                forgotten.encode(&mut out);
            }
            out.put_u16(u16::try_from(generation.purposes.len()).unwrap_or(u16::MAX));
            for (purpose, standing) in &generation.purposes {
                out.put_u16(*purpose);
                let flags = u8::from(standing.consent.is_some())
                    | u8::from(standing.withdrawn.is_some()) << 1
                    | u8::from(standing.until.is_some()) << 2
                    | u8::from(standing.held) << 3
                    | u8::from(standing.remade) << 4
                    | u8::from(standing.tickets_ms.is_some()) << 5;
                out.put_u8(flags);
                if let Some(evidence) = &standing.consent {
                    evidence.encode(&mut out);
                }
                for day in [standing.withdrawn, standing.until].into_iter().flatten() {
                    out.put_u16(day.number());
                }
                if let Some(until) = standing.tickets_ms {
                    out.put_i64(until);
                }
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        let mut meta = Meta::default();
        match r.u8()? {
            VERSION => {}
            PLACED => {
                meta.lookup = r.u16()?;
                for _ in 0..r.u8()? {
                    meta.left.push((r.array()?, r.flag()?));
                }
                if meta.lookup == 0 {
                    // Only the key that the vault was made with has the number 0, and nothing moves to that.
                    return Err(Malformed::NotCanonical.into());
                }
            }
            _ => return Err(Unsupported::Version.into()),
        }
        meta.state = r.u64()?;
        if r.flag()? {
            meta.held = Some(Held { serial: r.array()?, since_ms: r.i64()?, ground: r.text()?.to_owned() });
        }
        for _ in 0..r.u16()? {
            let mut generation = Generation {
                number: r.u16()?,
                serial: r.array()?,
                enrolled_ms: r.i64()?,
                forgotten: None,
                purposes: BTreeMap::new(),
            };
            if meta.generations.last().is_some_and(|last: &Generation| last.number >= generation.number) {
                return Err(Malformed::Order.into());
            }
            if r.flag()? {
                generation.forgotten = Some(Forgotten::decode(&mut r)?);
            }
            for _ in 0..r.u16()? {
                let purpose = r.u16()?;
                let flags = r.u8()?;
                if flags > 0b11_1111
                    || generation.purposes.last_key_value().is_some_and(|(last, _)| *last >= purpose)
                {
                    return Err(Malformed::NotCanonical.into());
                }
                let consent = (flags & 1 != 0).then(|| Evidence::decode(&mut r)).transpose()?;
                let withdrawn = (flags & 2 != 0).then(|| r.u16().map(Day)).transpose()?;
                let until = (flags & 4 != 0).then(|| r.u16().map(Day)).transpose()?;
                let tickets_ms = (flags & 32 != 0).then(|| r.i64()).transpose()?;
                let (held, remade) = (flags & 8 != 0, flags & 16 != 0);
                let standing = Standing { consent, withdrawn, until, held, remade, tickets_ms };
                generation.purposes.insert(purpose, standing);
            }
            meta.generations.push(generation);
        }
        r.end()?;
        Ok(meta)
    }
}

impl Forgotten {
    fn encode(&self, out: &mut Zeroizing<Vec<u8>>) {
        out.put_i64(self.at_ms);
        out.put_u16(self.due.number());
        out.put_u8(self.shredded.into());
        out.put(&self.reference);
        out.put(&self.commitment);
        out.put_bytes(self.actor.as_bytes());
        out.put_bytes(self.approver.as_bytes());
        out.put_bytes(self.ground.as_bytes());
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Forgotten {
            at_ms: r.i64()?,
            due: Day(r.u16()?),
            shredded: r.flag()?,
            reference: r.array()?,
            commitment: r.array()?,
            actor: r.text()?.to_owned(),
            approver: r.text()?.to_owned(),
            ground: r.text()?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Meta;
    use crate::error::{Error, Malformed, Unsupported};

    #[test]
    fn where_an_entry_lies_is_said_only_where_it_is_not_the_first_place() {
        let first = Meta { state: 5, ..Meta::default() };
        let bytes = first.encode();
        assert_eq!((bytes[0], Meta::decode(&bytes).unwrap().tag(&[9; 16])), (1, [9; 16]));

        let left = vec![([7; 16], true), ([8; 16], false)];
        let moved = Meta { state: 5, lookup: 6, left: left.clone(), ..Meta::default() };
        let bytes = moved.encode();
        let read = Meta::decode(&bytes).unwrap();
        assert_eq!((read.state, read.lookup, &read.left, read.tag(&[9; 16])), (5, 6, &left, [7; 16]));
        assert_eq!((bytes[0], read.encode()), (2, bytes.clone()));
        for length in 0..bytes.len() {
            assert!(matches!(Meta::decode(&bytes[..length]), Err(Error::Malformed(_))), "{length}");
        }

        let mut other = bytes.to_vec();
        other[1..3].copy_from_slice(&[0, 0]);
        assert_eq!(Meta::decode(&other).unwrap_err(), Malformed::NotCanonical.into());
        other[0] = 3;
        assert_eq!(Meta::decode(&other).unwrap_err(), Unsupported::Version.into());
    }
}
