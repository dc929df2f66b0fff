//! Cells: fields that share their purposes and periods, sealed together under one content key, with one lockbox for
//! each purpose. The format is in docs/SPEC.md, "Cell".

use zeroize::{Zeroize as _, Zeroizing};

use crate::clock::Day;
use crate::context::{self, Aad, Context};
use crate::crypto::aead::{self, Cipher, Suite, TAG};
use crate::crypto::{self, Prf};
use crate::error::{Error, Malformed, Misuse, Result};
use crate::key::ContentKey;
use crate::value::Encoder;
use crate::wire::{Put as _, Reader, length, varint_len};

/// The most fields in a cell.
pub(crate) const MAX_FIELDS: usize = 128;
/// The most lockboxes on a cell.
pub(crate) const MAX_LOCKBOXES: usize = 32;
/// The largest plaintext of a cell, in bytes: 16 MiB.
pub(crate) const MAX_PLAINTEXT: usize = 16 << 20;

/// Zeros before the values, which a second key would have to produce: the padding fix of Albertini, Duong, Gueron,
/// Kölbl, Luykx, Schmieg ("How to Abuse and Fix Authenticated Encryption Without Key Commitment", USENIX Security
/// 2022), proven for AES-GCM and ChaCha20-Poly1305.
const COMMITMENT: usize = 32;
const SEAL_ID: usize = 16;
const LOCKBOX: usize = 32 + TAG;
/// Generation, number of fields, suite, number of lockboxes; then what follows the header.
const MAX_HEADER: usize = 1 + 2 + 1 + 3 * MAX_FIELDS + 1 + 4 * MAX_LOCKBOXES;
/// The longest context and header, or context and what names a lockbox.
const MAX_AAD: usize = context::MAX + MAX_HEADER;
/// What most take.
const SHORT_AAD: usize = 192;
/// Seal id, purpose and day.
const LOCKBOX_NAME: usize = SEAL_ID + 2 + 2;

/// A field's place in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) number: u16,
    /// Whether its bytes lie in a padded slot.
    pub(crate) padded: bool,
}

/// Where a cell is sealed to: the lockboxes' ciphers, and the hedges of the first one's shelf.
#[derive(Debug)]
pub(crate) struct Shelves {
    pub(crate) suite: Suite,
    pub(crate) generation: u16,
    pub(crate) hedge: Prf,
    pub(crate) second_hedge: Prf,
    /// Strictly ascending by purpose, at least one.
    pub(crate) boxes: Vec<Lock>,
}

/// One purpose and day, with the cipher of the shelf.
#[derive(Debug)]
pub(crate) struct Lock {
    pub(crate) purpose: u16,
    pub(crate) day: Day,
    pub(crate) cipher: Cipher,
}

/// What tells two seals apart even where everything else is equal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unique {
    pub(crate) prefix: [u8; 16],
    pub(crate) counter: u64,
}

/// How many bytes [`seal`] will append.
pub(crate) fn sealed_len(slots: &[Slot], boxes: usize, plaintext: usize) -> usize {
    header_len(slots, boxes)
        .saturating_add(SEAL_ID)
        .saturating_add(boxes.saturating_mul(LOCKBOX))
        .saturating_add(COMMITMENT)
        .saturating_add(plaintext)
        .saturating_add(TAG)
}

fn header_len(slots: &[Slot], boxes: usize) -> usize {
    let mut last = 0;
    let fields: usize = slots.iter().map(|slot| varint_len(field_code(&mut last, *slot))).sum();
    boxes.saturating_mul(4).saturating_add(fields).saturating_add(5)
}

/// The distance from the field before, doubled, plus one where the slot is padded.
fn field_code(last: &mut u16, slot: Slot) -> u32 {
    let distance = u32::from(slot.number.saturating_sub(*last));
    *last = slot.number;
    (distance << 1) | u32::from(slot.padded)
}

/// Appends a sealed cell to `out`, which has room for [`sealed_len`] bytes: it must not move while it holds plaintext.
/// `write` writes exactly `plaintext` bytes: the values in the order of `slots`.
pub(crate) fn seal(
    shelves: &Shelves,
    context: &Context<'_>,
    unique: Unique,
    slots: &[Slot],
    plaintext: usize,
    out: &mut Zeroizing<Vec<u8>>,
    write: impl FnOnce(&mut Encoder<'_>),
) -> Result<()> {
    let start = out.len();
    let boxes = shelves.boxes.len();
    let sound = (1..=MAX_FIELDS).contains(&slots.len()) && (1..=MAX_LOCKBOXES).contains(&boxes);
    if !sound || plaintext > MAX_PLAINTEXT {
        return Err(Misuse::TooLarge.into());
    }
    out.reserve_exact(sealed_len(slots, boxes, plaintext));

    put_header(shelves, slots, out);
    let head = out.len();
    out.resize(head.saturating_add(SEAL_ID).saturating_add(boxes.saturating_mul(LOCKBOX)), 0);
    let body = out.len();
    out.resize(body.saturating_add(COMMITMENT), 0);
    let values = out.len();
    let mut encoder = Encoder::new(out);
    write(&mut encoder);
    if !encoder.is_whole() || out.len() != values.saturating_add(plaintext) {
        wipe_from(out, start);
        return Err(Misuse::TooLarge.into());
    }

    let (before, secret) = out.split_at_mut(body);
    let (before, locks) = before.split_at_mut(head);
    let header = before.get(start..).unwrap_or_default();

    let sealed = with_aad(context, header.len(), |aad| {
        let values = secret.get(COMMITMENT..).unwrap_or_default();
        // Everything that is authenticated goes in, so that any difference between two seals gives another content key,
        // even with prefix and counter repeated by a fork, a snapshot or a stuck generator (ABUSE 12).
        let content = ContentKey::derive(
            &shelves.hedge,
            &[
                &unique.prefix,
                &unique.counter.to_be_bytes(),
                &length(aad.context()).to_be_bytes(),
                aad.context(),
                &length(header).to_be_bytes(),
                header,
                &length(values).to_be_bytes(),
                values,
            ],
        );
        let seal_id = shelves.second_hedge.tag(&[content.expose()]);
        lock(shelves, aad, &content, &seal_id, locks)?;
        aad.after_context(&[header])?;
        aead::seal_once(shelves.suite, content.expose(), aad.bytes(), secret)
    });
    match sealed {
        Ok(tag) => {
            out.extend_from_slice(&tag);
            Ok(())
        }
        Err(why) => {
            wipe_from(out, start);
            Err(why)
        }
    }
}

fn put_header(shelves: &Shelves, slots: &[Slot], out: &mut Zeroizing<Vec<u8>>) {
    out.put_u8(shelves.suite.number());
    out.put_u16(shelves.generation);
    out.put_u8(u8::try_from(slots.len()).unwrap_or(u8::MAX));
    let mut last = 0;
    for slot in slots {
        out.put_varint(field_code(&mut last, *slot));
    }
    out.put_u8(u8::try_from(shelves.boxes.len()).unwrap_or(u8::MAX));
    for lock in &shelves.boxes {
        out.put_u16(lock.purpose);
        out.put_u16(lock.day.number());
    }
}

/// Writes seal id and lockboxes.
fn lock(
    shelves: &Shelves,
    aad: &mut Aad<'_>,
    content: &ContentKey,
    seal_id: &[u8; SEAL_ID],
    out: &mut [u8],
) -> Result<()> {
    let (id, locks) = out.split_at_mut_checked(SEAL_ID).ok_or(Misuse::TooLarge)?;
    id.copy_from_slice(seal_id);
    for (lock, space) in shelves.boxes.iter().zip(locks.chunks_exact_mut(LOCKBOX)) {
        aad.after_context(&[seal_id, &lock.purpose.to_be_bytes(), &lock.day.number().to_be_bytes()])?;
        let (key, tag) = space.split_at_mut_checked(32).ok_or(Misuse::TooLarge)?;
        key.copy_from_slice(content.expose());
        tag.copy_from_slice(&lock.cipher.seal(seal_id, aad.bytes(), key)?);
    }
    Ok(())
}

/// Takes away what stands from `start` on.
pub(crate) fn wipe_from(out: &mut Vec<u8>, start: usize) {
    if let Some(rest) = out.get_mut(start..) {
        rest.zeroize();
    }
    out.truncate(start);
}

/// A cell as it was received. Parsing has checked its form, and nothing more.
#[derive(Clone, Debug)]
pub(crate) struct Cell<'a> {
    pub(crate) suite: Suite,
    pub(crate) generation: u16,
    header: &'a [u8],
    fields: &'a [u8],
    boxes: &'a [u8],
    seal_id: &'a [u8],
    locks: &'a [u8],
    body: &'a [u8],
}

impl<'a> Cell<'a> {
    /// Strict: all of `bytes`, one form only.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let suite = Suite::from_number(reader.u8()?)?;
        let generation = reader.u16()?;
        let count = usize::from(reader.u8()?);
        if !(1..=MAX_FIELDS).contains(&count) {
            return Err(Malformed::Content.into());
        }
        let before = reader.rest();
        let mut number: u32 = 0;
        for _ in 0..count {
            let code = reader.varint()?;
            number = number.checked_add(code >> 1).ok_or(Malformed::Content)?;
            if code >> 1 == 0 || number > u32::from(u16::MAX) {
                return Err(Malformed::Order.into());
            }
        }
        let fields = consumed(before, &reader);

        let count = usize::from(reader.u8()?);
        if !(1..=MAX_LOCKBOXES).contains(&count) {
            return Err(Malformed::Content.into());
        }
        let boxes = reader.take(count.saturating_mul(4))?;
        let mut last = 0;
        for (purpose, _) in lockboxes(boxes) {
            if purpose <= last {
                return Err(Malformed::Order.into());
            }
            last = purpose;
        }
        let header = consumed(bytes, &reader);
        let seal_id = reader.take(SEAL_ID)?;
        let locks = reader.take(count.saturating_mul(LOCKBOX))?;
        let body = reader.rest();
        let plaintext = body.len().checked_sub(COMMITMENT.saturating_add(TAG)).ok_or(Malformed::Length)?;
        if plaintext > MAX_PLAINTEXT {
            return Err(Malformed::Length.into());
        }
        Ok(Cell { suite, generation, header, fields, boxes, seal_id, locks, body })
    }

    /// The fields, ascending.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> + Clone + 'a {
        let mut reader = Reader::new(self.fields);
        let mut number: u16 = 0;
        std::iter::from_fn(move || {
            let code = reader.varint().ok()?;
            number = number.saturating_add(u16::try_from(code >> 1).ok()?);
            Some(Slot { number, padded: code & 1 == 1 })
        })
    }

    /// The lockboxes, ascending by purpose.
    pub(crate) fn lockboxes(&self) -> impl Iterator<Item = (u16, Day)> + Clone + 'a {
        lockboxes(self.boxes)
    }

    /// The last day of a purpose.
    pub(crate) fn day_for(&self, purpose: u16) -> Option<Day> {
        self.lockboxes().find(|(known, _)| *known == purpose).map(|(_, day)| day)
    }

    /// Whether the lockbox of a purpose opens under a shelf: then purpose and day are what was sealed.
    pub(crate) fn is_locked_by(&self, context: &Context<'_>, purpose: u16, cipher: &Cipher) -> bool {
        with_aad(context, self.header.len(), |aad| self.unlock(aad, purpose, cipher)).is_ok()
    }

    /// Opens one lockbox.
    fn unlock(&self, aad: &mut Aad<'_>, purpose: u16, cipher: &Cipher) -> Result<ContentKey> {
        let index = self.lockboxes().position(|(known, _)| known == purpose).ok_or(Error::DoesNotOpen)?;
        let named = self.boxes.chunks_exact(4).nth(index).ok_or(Error::DoesNotOpen)?;
        let space = self.locks.chunks_exact(LOCKBOX).nth(index).ok_or(Error::DoesNotOpen)?;
        let (wrapped, tag) = space.split_first_chunk::<32>().ok_or(Error::DoesNotOpen)?;
        let seal_id: &[u8; 16] = self.seal_id.try_into().map_err(|_| Error::DoesNotOpen)?;
        aad.after_context(&[seal_id, named])?;
        let mut key = *wrapped;
        cipher.open(seal_id, aad.bytes(), &mut key, tag.try_into().map_err(|_| Error::DoesNotOpen)?)?;
        Ok(ContentKey::take(&mut key))
    }

    /// Decrypts with the cipher of one lockbox's shelf and gives the values' bytes to `read`; afterwards they are wiped.
    pub(crate) fn open<T>(
        &self,
        context: &Context<'_>,
        purpose: u16,
        cipher: &Cipher,
        read: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<T> {
        let (body, tag) = self.body.split_last_chunk::<TAG>().ok_or(Error::DoesNotOpen)?;
        with_copy(body, |buffer| read(self.decrypt(context, purpose, cipher, buffer, tag)?))
    }

    /// The same behind what `out` holds. The part of the values' bytes that `read` gives stays there, and nothing else of
    /// them; on an error nothing.
    pub(crate) fn open_behind(
        &self,
        context: &Context<'_>,
        purpose: u16,
        cipher: &Cipher,
        out: &mut Vec<u8>,
        read: impl FnOnce(&[u8]) -> Result<&[u8]>,
    ) -> Result<()> {
        let (body, tag) = self.body.split_last_chunk::<TAG>().ok_or(Error::DoesNotOpen)?;
        let start = out.len();
        out.extend_from_slice(body);
        let part = out.get_mut(start..).ok_or(Error::DoesNotOpen).and_then(|buffer| {
            let values = self.decrypt(context, purpose, cipher, buffer, tag)?;
            let part = read(values)?;
            let before =
                part.as_ptr().addr().checked_sub(values.as_ptr().addr()).ok_or(Error::DoesNotOpen)?;
            let from = start.saturating_add(COMMITMENT).saturating_add(before);
            Ok(from..from.saturating_add(part.len()))
        });
        match part {
            Ok(part) => {
                let end = start.saturating_add(part.len());
                out.copy_within(part, start);
                wipe_from(out, end);
                Ok(())
            }
            Err(why) => {
                wipe_from(out, start);
                Err(why)
            }
        }
    }

    /// Decrypts a copy of the body, and gives the values' bytes.
    fn decrypt<'b>(
        &self,
        context: &Context<'_>,
        purpose: u16,
        cipher: &Cipher,
        buffer: &'b mut [u8],
        tag: &[u8; TAG],
    ) -> Result<&'b [u8]> {
        with_aad(context, self.header.len(), |aad| {
            let content = self.unlock(aad, purpose, cipher)?;
            aad.after_context(&[self.header])?;
            aead::open_once(self.suite, content.expose(), aad.bytes(), buffer, tag)
        })?;
        // A body that opens under two keys would have to decrypt to these zeros under both (ABUSE 11).
        let (zeros, values) = buffer.split_first_chunk::<COMMITMENT>().ok_or(Error::DoesNotOpen)?;
        if crypto::all_zero(zeros) { Ok(values) } else { Err(Error::DoesNotOpen) }
    }
}

/// Room for a context and a header, or what names a lockbox; the less of it the better, since all of it is written with
/// zeros first.
#[inline]
fn with_aad<T>(
    context: &Context<'_>,
    header: usize,
    work: impl FnOnce(&mut Aad<'_>) -> Result<T>,
) -> Result<T> {
    if context.len().saturating_add(header.max(LOCKBOX_NAME)) <= SHORT_AAD {
        work(&mut Aad::new(&mut [0; SHORT_AAD], context)?)
    } else {
        work(&mut Aad::new(&mut [0; MAX_AAD], context)?)
    }
}

fn lockboxes(boxes: &[u8]) -> impl Iterator<Item = (u16, Day)> + Clone + '_ {
    boxes.chunks_exact(4).filter_map(|chunk| {
        let mut reader = Reader::new(chunk);
        Some((reader.u16().ok()?, Day(reader.u16().ok()?)))
    })
}

fn consumed<'a>(before: &'a [u8], reader: &Reader<'_>) -> &'a [u8] {
    before.get(..before.len().saturating_sub(reader.rest().len())).unwrap_or_default()
}

/// Short bodies are decrypted on the stack, so that opening allocates nothing beyond the values; the shortest in less of
/// it, since all of it is written with zeros first.
fn with_copy<T>(bytes: &[u8], work: impl FnOnce(&mut [u8]) -> Result<T>) -> Result<T> {
    let (mut few, mut some, mut many);
    let room: &mut [u8] = match bytes.len() {
        0..=256 => {
            few = [0; 256];
            &mut few
        }
        257..=1024 => {
            some = [0; 1024];
            &mut some
        }
        more => {
            many = vec![0; more];
            &mut many
        }
    };
    let buffer = Wiped(room.get_mut(..bytes.len()).unwrap_or_default());
    buffer.0.copy_from_slice(bytes);
    work(buffer.0)
}

/// Wipes what was used of a buffer, in one piece: `Zeroizing` would wipe it byte by byte.
struct Wiped<'a>(&'a mut [u8]);

impl Drop for Wiped<'_> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// How the values of a cell lie in its plaintext (SPEC, "Values").
pub(crate) mod slot {
    use super::{Error, Malformed, Reader, Result, varint_len};
    use crate::value::Encoder;
    use crate::wire::Put as _;

    /// How many bytes a value of `len` bytes takes, `None` for a field that was left empty.
    pub(crate) fn len(value: Option<usize>, padding: u16) -> usize {
        let inner = inner_len(value);
        if padding == 0 {
            return inner;
        }
        let slot = inner.checked_next_multiple_of(usize::from(padding)).unwrap_or(usize::MAX);
        slot.saturating_add(varint_len(count(Some(slot))))
    }

    /// Writes a value through `write`.
    pub(crate) fn put(
        value: Option<usize>,
        padding: u16,
        out: &mut Encoder<'_>,
        write: impl FnOnce(&mut Encoder<'_>),
    ) {
        let inner = inner_len(value);
        let mut slot = inner;
        if padding > 0 {
            slot = inner.checked_next_multiple_of(usize::from(padding)).unwrap_or(usize::MAX);
            put_count(Some(slot), out);
        }
        put_count(value, out);
        write(out);
        let mut zeros = slot.saturating_sub(inner);
        while zeros > 0 {
            let n = zeros.min(64);
            out.put([0; 64].get(..n).unwrap_or_default());
            zeros = zeros.saturating_sub(n);
        }
    }

    /// Takes the next value: `None` for a field that was left empty.
    pub(crate) fn take<'a>(reader: &mut Reader<'a>, padded: bool) -> Result<Option<&'a [u8]>> {
        if !padded {
            return take_value(reader);
        }
        let mut slot = Reader::new(take_value(reader)?.ok_or(Error::Malformed(Malformed::Content))?);
        let value = take_value(&mut slot)?;
        if slot.rest().iter().any(|byte| *byte != 0) {
            return Err(Malformed::NotCanonical.into());
        }
        Ok(value)
    }

    /// The next value with all its padding, as it lies there.
    pub(crate) fn take_raw<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8]> {
        let before = reader.rest();
        take_value(reader)?;
        Ok(super::consumed(before, reader))
    }

    fn take_value<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>> {
        match reader.varint()?.checked_sub(1) {
            None => Ok(None),
            Some(n) => {
                reader.take(usize::try_from(n).map_err(|_| Error::Malformed(Malformed::Length))?).map(Some)
            }
        }
    }

    fn inner_len(value: Option<usize>) -> usize {
        value.unwrap_or(0).saturating_add(varint_len(count(value)))
    }

    fn count(value: Option<usize>) -> u32 {
        value.map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1))
    }

    fn put_count(value: Option<usize>, out: &mut Encoder<'_>) {
        out.put_varint(count(value));
    }
}

#[cfg(test)]
mod tests;
