//! Erasure certificates: readable signed notes (C2SP signed-note) that anyone can check with the vault's verifier key.

use std::fmt::Write as _;

use crate::clock::{Day, rfc3339};
use crate::entry::Shredded;
use crate::error::{Malformed, Result, RolledBack, Unsupported};
use crate::key::label;
use crate::note::{SignedNote, VerifierKey};
use crate::row::{Plain, Row, wrap};
use crate::shred::NOTES;
use crate::store::{Key, Range, Versioned};
use crate::tree::batch::BatchId;
use crate::vault::{Inner, Vault};
use crate::wire::{Put as _, Reader};

/// A signed erasure certificate. Its text is meant to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate(String);

impl Certificate {
    /// The note, to be handed to the person and filed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks the signature and returns the text that is signed.
    ///
    /// # Errors
    ///
    /// [`Error::DoesNotOpen`](crate::Error::DoesNotOpen) where the key did not sign it, or it was altered;
    /// [`Malformed`] where it is no signed note.
    pub fn verify(note: &str, key: &VerifierKey) -> Result<String> {
        let text = SignedNote::parse(note)?.verify(key)?.to_owned();
        // Another note of the same vault is no certificate.
        let heading = format!("{}/erasure", key.name());
        if text.lines().next() == Some(&*heading) { Ok(text) } else { Err(Malformed::Content.into()) }
    }

    pub(crate) fn name(reference: &[u8; 16]) -> Key {
        [b"z", &reference[..]].concat()
    }

    pub(crate) fn sign(vault: &Inner, pending: &Pending, epoch: u64, left_ms: i64, now: i64) -> Result<Self> {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let mut line = |what: &str, value: &str| {
            let _ = writeln!(text, "{what}: {value}");
        };
        line("reference", &hex(&pending.reference));
        line("requester (SHA-256 commitment)", &hex(&pending.commitment));
        line("forgotten", &rfc3339(pending.at_ms));
        line("by", &pending.actor);
        line("approved by", or_none(&pending.approver));
        line("ground", or_none(&pending.ground));
        line(
            "method",
            "purpose keys destroyed, their path re-keyed up to a new root key, the old root key destroyed",
        );
        line("destroyed purposes", or_none(&pending.destroyed.join(", ")));
        if pending.kept.is_empty() {
            line("kept", "nothing");
        }
        for (purpose, until) in &pending.kept {
            line("kept by law or contract", &format!("{purpose} until {until}"));
        }
        line("root epoch left", &format!("{epoch} on {}", rfc3339(left_ms)));
        line("root key destroyed", &rfc3339(now));
        line("unreadable after", &rfc3339(vault.unreadable_once_destroyed(now)));
        line("keeper", vault.roots.erasure_class().label());
        line("log reference", &hex(&pending.reference));
        line("tickets given", or_none(&pending.tickets.join(", ")));
        for what in NOT_PROVEN {
            line("not proven", what);
        }
        let text = format!("{}/erasure\n{text}", vault.origin());
        vault.sign(&text).map(Certificate)
    }
}

/// What no certificate of this kind can prove.
const NOT_PROVEN: [&str; 4] = [
    "that nobody copied plaintext while it could be opened",
    "that the keeper's medium keeps no trace, beyond what its class says",
    "that no copy of keeper and secret was made outside the keeper",
    "that what the shop keeps outside the vault was erased",
];

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// A certificate that waits for its epoch to be destroyed. Nothing in it leads to the subject.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) reference: [u8; 16],
    pub(crate) batch: BatchId,
    /// How many removals of the batch were made before the one that it is about.
    pub(crate) removal: u32,
    commitment: [u8; 32],
    at_ms: i64,
    actor: String,
    approver: String,
    ground: String,
    destroyed: Vec<String>,
    tickets: Vec<String>,
    kept: Vec<(String, Day)>,
}

impl Pending {
    pub(crate) const PREFIX: &'static [u8] = b"r";

    pub(crate) fn of(
        shredded: &Shredded,
        batch: BatchId,
        removal: u32,
        label: impl Fn(u16) -> String,
    ) -> Self {
        let forgotten = &shredded.forgotten;
        Pending {
            reference: forgotten.reference,
            batch,
            removal,
            commitment: forgotten.commitment,
            at_ms: forgotten.at_ms,
            actor: forgotten.actor.clone(),
            approver: forgotten.approver.clone(),
            ground: forgotten.ground.clone(),
            destroyed: shredded.destroyed.iter().map(|purpose| label(*purpose)).collect(),
            tickets: shredded.tickets.iter().map(|purpose| label(*purpose)).collect(),
            kept: shredded.kept.iter().map(|(purpose, until)| (label(*purpose), *until)).collect(),
        }
    }

    pub(crate) fn name(&self) -> Key {
        [Self::PREFIX, &self.reference[..]].concat()
    }

    /// Wrapped, so that nobody who writes the store can have a certificate signed that they made up.
    pub(crate) fn wrap(&self, vault: &Inner) -> Result<Vec<u8>> {
        let plain = Plain::whole(0, &self.encode());
        wrap(&vault.side_parent(label::PENDING)?, &vault.id, &self.name(), 0, &plain)
    }

    pub(crate) fn unwrap(vault: &Inner, name: &[u8], row: &Versioned) -> Result<Self> {
        let plain = Row::parse(&row.value)?.open_all(&vault.side_parent(label::PENDING)?, &vault.id, name);
        let plain = plain.map_err(|_| RolledBack::Mixed)?.into_whole().ok_or(Malformed::Content)?;
        Self::decode(&plain)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![2];
        out.put(&self.reference);
        out.put(&self.batch);
        out.put_u32(self.removal);
        out.put(&self.commitment);
        out.put_i64(self.at_ms);
        for text in [&self.actor, &self.approver, &self.ground] {
            out.put_bytes(text.as_bytes());
        }
        for labels in [&self.destroyed, &self.tickets] {
            out.put_u16(u16::try_from(labels.len()).unwrap_or(u16::MAX));
            for label in labels {
                out.put_bytes(label.as_bytes());
            }
        }
        for (label, until) in &self.kept {
            out.put_bytes(label.as_bytes());
            out.put_u16(until.number());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.u8()? != 2 {
            return Err(Unsupported::Version.into());
        }
        let mut pending = Pending {
            reference: r.array()?,
            batch: r.array()?,
            removal: r.u32()?,
            commitment: r.array()?,
            at_ms: r.i64()?,
            actor: r.text()?.to_owned(),
            approver: r.text()?.to_owned(),
            ground: r.text()?.to_owned(),
            destroyed: Vec::new(),
            tickets: Vec::new(),
            kept: Vec::new(),
        };
        for _ in 0..r.u16()? {
            pending.destroyed.push(r.text()?.to_owned());
        }
        for _ in 0..r.u16()? {
            pending.tickets.push(r.text()?.to_owned());
        }
        while !r.is_empty() {
            pending.kept.push((r.text()?.to_owned(), Day(r.u16()?)));
        }
        Ok(pending)
    }
}

/// Signed notes are kept in clear.
fn text(row: Versioned) -> Result<String> {
    String::from_utf8(row.value).map_err(|_| Malformed::Content.into())
}

impl Vault {
    /// The certificate of a forget, by the reference that its receipt gave; `None` until it is final.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn certificate(&self, reference: &[u8; 16]) -> Result<Option<Certificate>> {
        let row = self.0.rows.get(&Certificate::name(reference)).await?;
        row.map(|row| text(row).map(Certificate)).transpose()
    }

    /// The signed notes that expiries have left, oldest first.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn expiry_notes(&self) -> Result<Vec<String>> {
        let rows = self.0.rows.all(Range::prefix(NOTES)).await?.into_iter();
        // The names of others are longer.
        rows.filter(|(name, _)| name.len() == NOTES.len().saturating_add(2))
            .map(|(_, row)| text(row))
            .collect()
    }

    /// The notes that changes of the signing key have left, oldest first: each is signed by the former key and by the one
    /// that it names. Whoever verifies goes from a key that they trust to the one of today.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn key_notes(&self) -> Result<Vec<String>> {
        let prefix = [NOTES, b"key"].concat();
        let length = prefix.len().saturating_add(2);
        let rows = self.0.rows.all(Range::prefix(&prefix)).await?.into_iter();
        rows.filter(|(name, _)| name.len() == length).map(|(_, row)| text(row)).collect()
    }
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::SignedNote;
    use crate::clock::Day;
    use crate::ring::KeyKind;
    use crate::testing::{ManualClock, ephemeral, test_ground, tester};
    use crate::vault::Options;

    #[test]
    fn notes_of_expiries_and_of_keys_are_told_apart() {
        block_on(async {
            // The number of this day begins with the bytes of "ke".
            let clock = ManualClock::at(Day(0x6B65));
            let vault = ephemeral(Options::new().clock(clock.clone())).await.unwrap();
            let (me, why) = (tester(), test_ground());
            let mut keys = Vec::new();
            let mut expiries = Vec::new();
            for _ in 0..3 {
                keys.push(vault.change_key(KeyKind::Signing, &me, &why).await.unwrap().note.unwrap());
                clock.advance_days(1);
                expiries.push(vault.expire(&me, &why).await.unwrap().note.unwrap());
            }
            assert_eq!(vault.expiry_notes().await.unwrap(), expiries);
            assert_eq!(vault.key_notes().await.unwrap(), keys);
            let newest = SignedNote::parse(&keys[2]).unwrap();
            assert!(newest.verify(&vault.verifier_key().unwrap()).unwrap().contains("/key-change\n"));
        });
    }
}
