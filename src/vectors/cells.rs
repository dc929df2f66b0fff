//! Shelves, contexts and cells.

use serde_json::{Value as Json, json};
use zeroize::Zeroizing;

use super::{array, check, count, hex, said, unhex};
use crate::cell::{self, Cell, Lock, Shelves, Slot, Unique, slot};
use crate::clock::Day;
use crate::context::{Context, Shape};
use crate::crypto::Hkdf;
use crate::crypto::aead::{self, Suite};
use crate::error::Result;
use crate::keeper::VaultId;
use crate::key::{Day as DayStage, Purpose, Secret, Shelf, label};
use crate::sealed::cells;
use crate::wire::{Put as _, Reader};

const SUITES: [Suite; 2] = [Suite::Aes256Gcm, Suite::XChaCha20Poly1305];

fn vault() -> VaultId {
    VaultId(count(0x10))
}

fn context(record_id: &[u8], shape: Shape) -> Context<'_> {
    Context::new(&vault(), &count(0x20), "order", record_id, shape).unwrap()
}

/// Purpose, day, and the first bytes of their keys.
const SHIPPING: (u16, u16, u8, u8) = (1, 20_548, 0x40, 0x80);
const INVOICING: (u16, u16, u8, u8) = (3, 24_111, 0x60, 0xA0);

fn shelf((_, _, purpose, day): (u16, u16, u8, u8)) -> Secret<Shelf> {
    let purpose = Secret::<Purpose>::from_slice(&count::<32>(purpose)).unwrap();
    Secret::combine(&Secret::<DayStage>::from_slice(&count::<32>(day)).unwrap(), &purpose)
}

#[test]
fn shelves() {
    let shelf = shelf(SHIPPING);
    let expanded = |label: &[u8], suite: Suite| {
        let mut out = [0; 32];
        Hkdf::from_prk(shelf.expose()).expand(&[label, &[suite.number()]], &mut out);
        hex(&out)
    };
    let suites: Vec<Json> = SUITES
        .iter()
        .map(|suite| {
            json!({
                "suite": suite.number(),
                "hedge_key": expanded(label::HEDGE, *suite),
                "second_hedge_key": expanded(label::SECOND_HEDGE, *suite),
                "wrap_key": expanded(label::WRAP, *suite),
            })
        })
        .collect();
    check(
        "shelf",
        &json!({
            "show": "A shelf key from a day key and a purpose key, and what is derived from it for each suite.",
            "kind": "shelf",
            "day_key": hex(&count::<32>(SHIPPING.3)),
            "purpose_key": hex(&count::<32>(SHIPPING.2)),
            "shelf_key": hex(shelf.expose()),
            "suites": suites,
        }),
    );
}

#[test]
fn contexts() {
    let made = |record_id: &[u8], shape: Shape| {
        let number = u8::from(shape == Shape::Field);
        let bytes = hex(&context(record_id, shape).bytes());
        json!({ "record_id": hex(record_id), "shape": number, "context": bytes })
    };
    let all = [made(&[], Shape::Record), made(&[0, 7], Shape::Record), made(&[0, 7], Shape::Field)];
    check(
        "context",
        &json!({
            "show": "What cells are bound to: a record without an id, one with an id, a single field of it.",
            "kind": "context",
            "vault": hex(vault().bytes()),
            "serial": hex(&count::<16>(0x20)),
            "record": "order",
            "contexts": all,
        }),
    );
}

/// A field: number, padding, value.
type Given<'a> = (u16, u16, Option<&'a [u8]>);

struct Made {
    suite: Suite,
    locks: Vec<(u16, u16, u8, u8)>,
    fields: Json,
    plaintext: Vec<u8>,
    header: usize,
    cell: Vec<u8>,
}

const ID: [u8; 8] = [0, 0, 0, 0, 0, 0, 0, 7];
const UNIQUE: u64 = 0x0102;

fn seal(suite: Suite, locks: &[(u16, u16, u8, u8)], given: &[Given<'_>]) -> Made {
    let (hedge, second_hedge) = shelf(locks[0]).hedges(suite);
    let lock =
        |of: &(u16, u16, u8, u8)| Lock { purpose: of.0, day: Day(of.1), cipher: shelf(*of).wrap(suite) };
    let boxes = locks.iter().map(lock).collect();
    let shelves = Shelves { suite, generation: 2, hedge, second_hedge, boxes };
    let slots: Vec<Slot> =
        given.iter().map(|(number, pad, _)| Slot { number: *number, padded: *pad > 0 }).collect();
    let len = given.iter().map(|(_, pad, value)| slot::len(value.map(<[u8]>::len), *pad)).sum();
    let unique = Unique { prefix: count(0xC0), counter: UNIQUE };
    let mut plaintext = Vec::new();
    let mut out = Zeroizing::new(Vec::new());
    cell::seal(&shelves, &context(&ID, Shape::Record), unique, &slots, len, &mut out, |out| {
        for (_, pad, value) in given {
            slot::put(value.map(<[u8]>::len), *pad, out, |out| out.put(value.unwrap_or_default()));
        }
    })
    .unwrap();
    let mut made = Zeroizing::new(Vec::with_capacity(len));
    for (_, pad, value) in given {
        let mut encoder = crate::value::Encoder::new(&mut made);
        slot::put(value.map(<[u8]>::len), *pad, &mut encoder, |out| out.put(value.unwrap_or_default()));
    }
    plaintext.extend_from_slice(&made);
    let fields = given
        .iter()
        .map(|(number, pad, value)| json!({ "number": number, "padding": pad, "value": value.map(hex) }))
        .collect();
    let header = out.len() - 16 - 48 * locks.len() - 32 - len - 16;
    Made { suite, locks: locks.to_vec(), fields, plaintext, header, cell: out.to_vec() }
}

impl Made {
    fn lock(&self, index: usize) -> usize {
        self.header + 16 + 48 * index
    }

    fn seal_id(&self) -> [u8; 16] {
        self.cell[self.header..self.header + 16].try_into().unwrap()
    }

    /// Out of the first lockbox.
    fn content_key(&self) -> [u8; 32] {
        let at = self.lock(0);
        let (purpose, day, ..) = self.locks[0];
        let mut aad = context(&ID, Shape::Record).bytes();
        aad.put(&self.seal_id());
        aad.put_u16(purpose);
        aad.put_u16(day);
        let mut key: [u8; 32] = self.cell[at..at + 32].try_into().unwrap();
        let tag = self.cell[at + 32..at + 48].try_into().unwrap();
        shelf(self.locks[0]).wrap(self.suite).open(&self.seal_id(), &aad, &mut key, &tag).unwrap();
        key
    }

    /// Another body under the same content key, and the same header: what no sealer makes.
    fn with_body(&self, body: &[u8]) -> Vec<u8> {
        let mut aad = context(&ID, Shape::Record).bytes();
        aad.put(&self.cell[..self.header]);
        let mut body = body.to_vec();
        let tag = aead::seal_once(self.suite, &self.content_key(), &aad, &mut body).unwrap();
        [&self.cell[..self.lock(self.locks.len())], &body, &tag].concat()
    }

    fn positive(&self, name: &str, show: &str) {
        let mut vector = self.opened(show, &self.cell, &ID);
        vector["fields"] = self.fields.clone();
        vector["made_from"] = json!({
            "suite": self.suite.number(),
            "generation": 2,
            "prefix": hex(&count::<16>(0xC0)),
            "counter": UNIQUE,
        });
        vector["steps"] = json!({
            "context": hex(&context(&ID, Shape::Record).bytes()),
            "header": hex(&self.cell[..self.header]),
            "plaintext": hex(&self.plaintext),
            "content_key": hex(&self.content_key()),
            "seal_id": hex(&self.seal_id()),
        });
        assert_eq!(vector["result"], "opens");
        check(name, &vector);
    }

    fn negative(&self, name: &str, show: &str, cell: &[u8], result: &str) {
        let vector = self.opened(show, cell, &ID);
        assert_eq!(vector["result"], result, "{name}");
        check(name, &vector);
    }

    /// A vector whose result is what this crate says, for each lockbox the same.
    fn opened(&self, show: &str, cell: &[u8], record_id: &[u8]) -> Json {
        let locks: Vec<Json> = self
            .locks
            .iter()
            .map(|(purpose, day, key, day_key)| {
                json!({
                    "purpose": purpose,
                    "day": day,
                    "purpose_key": hex(&count::<32>(*key)),
                    "day_key": hex(&count::<32>(*day_key)),
                })
            })
            .collect();
        let mut vector = json!({
            "show": show,
            "kind": "cell",
            "vault": hex(vault().bytes()),
            "serial": hex(&count::<16>(0x20)),
            "record": "order",
            "record_id": hex(record_id),
            "shape": 0,
            "lockboxes": locks,
            "cell": hex(cell),
        });
        let results: Vec<_> = (0..self.locks.len()).map(|index| said(&open(&vector, index))).collect();
        assert!(results.iter().all(|result| *result == results[0]));
        vector["result"] = json!(results[0]);
        vector
    }
}

/// As an opener does it, from what the vector says alone.
fn open(vector: &Json, index: usize) -> Result<Vec<Option<Vec<u8>>>> {
    let bytes = unhex(&vector["cell"]);
    let lock = &vector["lockboxes"][index];
    let purpose = Secret::<Purpose>::from_slice(&array::<32>(&lock["purpose_key"])).unwrap();
    let day = Secret::<DayStage>::from_slice(&array::<32>(&lock["day_key"])).unwrap();
    let record_id = unhex(&vector["record_id"]);
    let context = Context::new(
        &VaultId(array(&vector["vault"])),
        &array(&vector["serial"]),
        vector["record"].as_str().unwrap(),
        &record_id,
        Shape::Record,
    )?;
    let cell = Cell::parse(&bytes)?;
    let number = u16::try_from(lock["purpose"].as_u64().unwrap()).unwrap();
    cell.open(&context, number, &Secret::combine(&day, &purpose).wrap(cell.suite), |values| {
        let mut reader = Reader::new(values);
        let mut fields = Vec::new();
        for field in cell.slots() {
            fields.push(slot::take(&mut reader, field.padded)?.map(<[u8]>::to_vec));
        }
        reader.end()?;
        Ok(fields)
    })
    // What does not decode after it was authenticated looks like everything else that does not open.
    .map_err(|why| if matches!(why, crate::Error::Malformed(_)) { crate::Error::DoesNotOpen } else { why })
}

fn an_order(suite: Suite) -> Made {
    seal(suite, &[SHIPPING], &[(1, 0, Some(b"Alice Lee")), (300, 0, Some(b"two"))])
}

#[test]
fn cells_that_open() {
    an_order(Suite::Aes256Gcm).positive("cell-aes-256-gcm", "Two fields under AES-256-GCM.");
    an_order(Suite::XChaCha20Poly1305)
        .positive("cell-xchacha20-poly1305", "The same two fields under XChaCha20-Poly1305.");
    seal(Suite::Aes256Gcm, &[SHIPPING], &[(2, 32, Some(b"+49301234567"))])
        .positive("cell-padded-field", "A field that is padded to a multiple of 32 bytes.");
    seal(Suite::Aes256Gcm, &[SHIPPING], &[(1, 0, None), (2, 0, Some(b"")), (3, 16, None)]).positive(
        "cell-empty-fields",
        "A field left empty, a value of no bytes, and a padded field left empty.",
    );
    seal(Suite::Aes256Gcm, &[SHIPPING, INVOICING], &[(1, 0, Some(b"Alice Lee"))])
        .positive("cell-two-lockboxes", "One body, opened by way of either of its two lockboxes.");
}

#[test]
fn cells_that_do_not() {
    let made = an_order(Suite::Aes256Gcm);
    let vector =
        made.opened("The cell of order 7, opened as order 8.", &made.cell, &[0, 0, 0, 0, 0, 0, 0, 8]);
    assert_eq!(vector["result"], "does-not-open");
    check("cell-wrong-context", &vector);

    let altered = |at: usize, bits: u8| {
        let mut cell = made.cell.clone();
        cell[at] ^= bits;
        cell
    };
    let last = made.cell.len() - 1;
    made.negative(
        "cell-flipped-tag",
        "The last bit of the body's tag is flipped.",
        &altered(last, 1),
        "does-not-open",
    );
    made.negative(
        "cell-altered-seal-id",
        "A bit of the seal id is flipped that is no part of the nonce of AES-256-GCM.",
        &altered(made.header + 15, 1),
        "does-not-open",
    );
    made.negative(
        "cell-altered-generation",
        "The header names another enrolment.",
        &altered(2, 1),
        "does-not-open",
    );
    made.negative("cell-unknown-suite", "Suite 3, which is reserved.", &altered(0, 2), "unsupported");
    made.negative("cell-cut", "The last byte is missing.", &made.cell[..last], "does-not-open");

    let body = [&[0; 31][..], &[1], &made.plaintext].concat();
    made.negative(
        "cell-commitment-violated",
        "The body is authentic, and does not begin with 32 zeros.",
        &made.with_body(&body),
        "does-not-open",
    );
    let body = [&[0; 32][..], &made.plaintext, &[0]].concat();
    made.negative(
        "cell-value-too-many",
        "The body is authentic, and holds a value more than the header names.",
        &made.with_body(&body),
        "does-not-open",
    );
    // The length of the first value, 9 + 1, in two bytes.
    let body = [&[0; 32][..], &[0x8A, 0], &made.plaintext[1..]].concat();
    made.negative(
        "cell-non-minimal-length",
        "The body is authentic, and the length of its first value is written in two bytes.",
        &made.with_body(&body),
        "does-not-open",
    );
    // Field 1 is 0x02; 0x82 0x00 says the same.
    let cell = [&made.cell[..4], &[0x82, 0], &made.cell[5..]].concat();
    made.negative("cell-non-minimal-varint", "The first field's number in two bytes.", &cell, "malformed");
    made.negative("cell-field-twice", "The first field's distance is 0.", &altered(4, 2), "malformed");
    let cell = [&made.cell[..7], &[0], &made.cell[7 + 5..]].concat();
    made.negative("cell-no-lockbox", "The header names no lockbox.", &cell, "malformed");

    let two = seal(Suite::Aes256Gcm, &[SHIPPING, INVOICING], &[(1, 0, Some(b"Alice Lee"))]);
    let mut cell = two.cell.clone();
    cell[6..14].rotate_left(4);
    two.negative(
        "cell-purposes-out-of-order",
        "The header names purpose 3 before purpose 1.",
        &cell,
        "malformed",
    );
    let mut cell = two.cell.clone();
    cell[two.lock(0)..two.lock(2)].rotate_left(48);
    two.negative("cell-lockboxes-swapped", "The two lockboxes change places.", &cell, "does-not-open");

    let padded = seal(Suite::Aes256Gcm, &[SHIPPING], &[(2, 32, Some(b"+49301234567"))]);
    let mut body = [&[0; 32][..], &padded.plaintext].concat();
    *body.last_mut().unwrap() = 1;
    padded.negative(
        "cell-padding-not-zero",
        "The body is authentic, and its padding does not end with zero.",
        &padded.with_body(&body),
        "does-not-open",
    );
}

#[test]
fn sealed_values() {
    let cell = |fields: &[Given<'_>]| seal(Suite::Aes256Gcm, &[SHIPPING], fields).cell;
    let (one, two) = (cell(&[(1, 0, Some(b"a")), (5, 0, Some(b"e"))]), cell(&[(2, 0, Some(b"b"))]));
    let joined = |version: u8, cells: &[&[u8]]| {
        let mut out = vec![version];
        for cell in cells {
            out.put_bytes(cell);
        }
        out
    };
    let sealed = |name: &str, show: &str, bytes: &[u8], result: &str| {
        let parsed = crate::Sealed::<Order>::from_bytes(bytes.to_vec());
        assert_eq!(said(&parsed), result, "{name}");
        let fields: Vec<Vec<u16>> = cells(bytes)
            .into_iter()
            .flatten()
            .flatten()
            .map(|cell| cell.slots().map(|slot| slot.number).collect())
            .collect();
        let mut vector = json!({ "show": show, "kind": "sealed", "sealed": hex(bytes), "result": result });
        if result == "opens" {
            vector["fields"] = json!(fields);
        }
        check(name, &vector);
    };
    sealed("sealed-two-cells", "Two cells, ascending by first field.", &joined(1, &[&one, &two]), "opens");
    sealed("sealed-unknown-version", "Version 2.", &joined(2, &[&one]), "unsupported");
    sealed("sealed-cells-out-of-order", "The cell of field 2 first.", &joined(1, &[&two, &one]), "malformed");
    let five = cell(&[(5, 0, Some(b"e"))]);
    sealed("sealed-field-in-two-cells", "Field 5 in both cells.", &joined(1, &[&one, &five]), "malformed");
    let mut open_end = joined(1, &[&one]);
    open_end.push(1);
    sealed("sealed-trailing-byte", "A length with nothing after it.", &open_end, "malformed");
}

crate::purposes! { Ship: Contract = 1 "ship"; }
crate::record! {
    struct Order[u64] / SealedOrder / OrderView in order = "order" {
        one: crate::value::Bytes = 1 "one", basic, for [Ship: 1 day];
    }
}
