//! What must be durable: forgetting one customer of many, and expiring a day. A peer's user keeps a data key for each customer
//! in a table, wrapped under a master key, and sealed values in rows; so forgetting is deleting a row, and because older copies
//! of the table keep it, wrapping the whole table again under a new master key and destroying the old one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use customer_vault::keeper::{FileKeeper, FileSecret};
use customer_vault::store::RedbStore;
use customer_vault::testing::{ManualClock, MemoryKeeper, test_ground, tester};
use customer_vault::value::Bytes;
use customer_vault::{Consent, Day, Forget, Options, SubjectId, Vault, purposes, record};
use kms_aead::ring_encryption::RingAeadEncryption;
use kms_aead::{AeadEncryption, CipherText, DataEncryptionKey};
use pollster::block_on;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use ring::aead::AES_256_GCM;
use ring::rand::{SecureRandom as _, SystemRandom};
use secret_vault_value::SecretValue;
use tink_core::Aead;
use tink_core::keyset::Handle;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    Forget,
    Expire,
}

/// One way to do it.
pub struct Did {
    pub what: Disk,
    pub krate: &'static str,
    pub way: &'static str,
    /// Customers or values.
    pub of: usize,
    pub nanoseconds: f64,
    /// What an older copy of the file still gives.
    pub copies: &'static str,
}

purposes! {
    Shipping: Contract = 1 "shipping";
    Invoicing: LegalObligation = 3 "invoicing";
}

record! {
    struct Note[u64] / SealedNote / NoteView in note = "note" {
        body: Bytes = 1 "body", basic, for [Shipping: 20 days, Invoicing: 60 days];
    }
}

/// So often what is done to one of many, and what is done to all.
const TIMES: usize = 20;
const TIMES_ALL: usize = 3;

/// What an older copy gives after us.
const GONE: &str = "nothing, once the restore window is over and `settle` has destroyed the root";

/// A folder that goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("customer-vault-peers-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// As in the rounds: a tenth keeps within it.
fn nanoseconds(mut took: Vec<Duration>) -> f64 {
    took.sort_unstable();
    took[took.len() / 10].as_secs_f64() * 1e9
}

fn name(customer: usize) -> String {
    format!("c-{customer}")
}

fn id(customer: usize) -> SubjectId {
    SubjectId::new(&name(customer)).unwrap()
}

/// Where the root keys lie.
#[derive(Clone, Copy)]
enum Roots {
    /// In a file, as by default.
    File,
    /// In memory: what is left is the store.
    Memory,
}

fn a_vault(folder: &Path, roots: Roots, options: Options) -> Vault {
    let options = options.record::<Note>();
    let store = RedbStore::create(folder.join("vault.redb")).unwrap();
    match roots {
        Roots::File => {
            let (secret, _) = FileSecret::generate().unwrap();
            let keeper = FileKeeper::create(folder.join("keys"), secret).unwrap();
            block_on(options.create(store, keeper.clone(), keeper)).unwrap()
        }
        Roots::Memory => {
            let keeper = MemoryKeeper::new();
            block_on(options.create(store, keeper.clone(), keeper)).unwrap()
        }
    }
}

pub fn forget(customers: usize) -> Vec<Did> {
    let mut done = ours_forget(customers, Roots::File);
    done.extend(ours_forget(customers, Roots::Memory));
    done.extend(peer_forget::<Tink>(customers));
    done.extend(peer_forget::<Kms>(customers));
    done
}

fn ours_forget(customers: usize, roots: Roots) -> Vec<Did> {
    let folder = Folder::new("forget");
    let vault = a_vault(&folder.0, roots, Options::new());
    let (me, why) = (tester(), test_ground());
    let everyone: Vec<(SubjectId, [Consent; 0])> =
        (0..customers).map(|customer| (id(customer), [])).collect();
    for enrolled in block_on(vault.enroll_many(&everyone, &me, &why)) {
        enrolled.unwrap();
    }
    let (mut forget, mut shred) = (Vec::new(), Vec::new());
    for time in 0..TIMES {
        let one = id(time * (customers / TIMES) % customers);
        let request = Forget::by(&me, &why).without_grace();
        let first = timed(|| drop(block_on(vault.forget(&one, request)).unwrap()));
        let second = timed(|| assert_eq!(block_on(vault.shred(&me, &why)).unwrap().subjects, 1));
        forget.push(first);
        shred.push(first + second);
    }
    let did = |way, took, copies| Did {
        what: Disk::Forget,
        krate: "customer-vault",
        way,
        of: customers,
        nanoseconds: nanoseconds(took),
        copies,
    };
    let whole = match roots {
        Roots::File => "forget and shred",
        Roots::Memory => "forget and shred, root keys in memory",
    };
    let mut done = vec![did(whole, shred, GONE)];
    if matches!(roots, Roots::File) {
        done.push(did("of that, forget: from then on nothing opens", forget, "the key"));
    }
    done
}

/// How a peer wraps a data key.
trait Master {
    const KRATE: &str;
    fn new() -> Self;
    fn wrap(&self, customer: &str, key: &[u8]) -> Vec<u8>;
    fn unwrap(&self, customer: &str, wrapped: &[u8]) -> Vec<u8>;
}

struct Tink(Box<dyn Aead>);

impl Master for Tink {
    const KRATE: &str = "tink-aead";

    fn new() -> Self {
        tink_aead::init();
        let handle = Handle::new(&tink_aead::aes256_gcm_key_template()).unwrap();
        Tink(tink_aead::new(&handle).unwrap())
    }

    fn wrap(&self, customer: &str, key: &[u8]) -> Vec<u8> {
        self.0.encrypt(key, customer.as_bytes()).unwrap()
    }

    fn unwrap(&self, customer: &str, wrapped: &[u8]) -> Vec<u8> {
        self.0.decrypt(wrapped, customer.as_bytes()).unwrap()
    }
}

struct Kms(RingAeadEncryption, DataEncryptionKey);

impl Master for Kms {
    const KRATE: &str = "kms-aead";

    fn new() -> Self {
        let aead = RingAeadEncryption::with_algorithm(&AES_256_GCM, SystemRandom::new()).unwrap();
        let key = aead.generate_data_encryption_key().unwrap();
        Kms(aead, key)
    }

    fn wrap(&self, customer: &str, key: &[u8]) -> Vec<u8> {
        let (context, key) = (customer.to_owned(), SecretValue::from(key.to_vec()));
        block_on(self.0.encrypt_value(&context, &key, &self.1)).unwrap().0
    }

    fn unwrap(&self, customer: &str, wrapped: &[u8]) -> Vec<u8> {
        let (context, wrapped) = (customer.to_owned(), CipherText(wrapped.to_vec()));
        let key = block_on(self.0.decrypt_value(&context, &wrapped, &self.1)).unwrap();
        key.ref_sensitive_value().clone()
    }
}

/// Customer, wrapped data key.
type Keys = TableDefinition<'static, &'static str, &'static [u8]>;
const KEYS: [Keys; 2] = [Keys::new("keys"), Keys::new("keys anew")];

fn peer_forget<M: Master>(customers: usize) -> Vec<Did> {
    let folder = Folder::new(M::KRATE);
    let db = Database::create(folder.0.join("keys.redb")).unwrap();
    let (mut master, random) = (M::new(), SystemRandom::new());
    let write = db.begin_write().unwrap();
    {
        let mut table = write.open_table(KEYS[0]).unwrap();
        for customer in 0..customers {
            let (name, mut key) = (name(customer), [0; 32]);
            random.fill(&mut key).unwrap();
            table.insert(name.as_str(), master.wrap(&name, &key).as_slice()).unwrap();
        }
    }
    write.commit().unwrap();

    let delete = (0..TIMES).map(|time| {
        let one = name(time * (customers / TIMES) % customers);
        timed(|| {
            let write = db.begin_write().unwrap();
            assert!(write.open_table(KEYS[0]).unwrap().remove(one.as_str()).unwrap().is_some());
            write.commit().unwrap();
        })
    });
    let delete = nanoseconds(delete.collect());
    let rewrap = (0..TIMES_ALL).map(|time| {
        let (old, new, next) = (KEYS[time % 2], KEYS[(time + 1) % 2], M::new());
        let took = timed(|| {
            let read = db.begin_read().unwrap().open_table(old).unwrap();
            let write = db.begin_write().unwrap();
            {
                let mut table = write.open_table(new).unwrap();
                for row in read.iter().unwrap() {
                    let (customer, wrapped) = row.unwrap();
                    let key = master.unwrap(customer.value(), wrapped.value());
                    table.insert(customer.value(), next.wrap(customer.value(), &key).as_slice()).unwrap();
                }
            }
            write.delete_table(old).unwrap();
            write.commit().unwrap();
        });
        master = next;
        took
    });
    let rewrap = nanoseconds(rewrap.collect());
    let did = |way, nanoseconds, copies| Did {
        what: Disk::Forget,
        krate: M::KRATE,
        way,
        of: customers,
        nanoseconds,
        copies,
    };
    vec![
        did("delete the row of the customer's key", delete, "the key"),
        did(
            "re-wrap the table under a new master key",
            rewrap,
            "nothing, once the old master key is destroyed",
        ),
    ]
}

pub fn expire(values: usize) -> Vec<Did> {
    let mut done = vec![ours_expire(values, Roots::File), ours_expire(values, Roots::Memory)];
    done.extend(peer_expire(values));
    done
}

/// The first day.
fn start() -> Day {
    Day::from_ymd(2026, 1, 5).unwrap()
}

/// Values lie wherever the shop keeps them: the vault destroys a key.
fn ours_expire(values: usize, roots: Roots) -> Did {
    let folder = Folder::new("expire");
    let clock = ManualClock::at(start());
    let vault = a_vault(&folder.0, roots, Options::new().clock(clock.clone()));
    let (me, why) = (tester(), test_ground());
    let customers = 10;
    for customer in 0..customers {
        block_on(vault.enroll(&id(customer), [], &me, &why)).unwrap();
    }
    // As many values on each of some days in a row.
    let mut sample = Vec::new();
    for _ in 0..TIMES_ALL {
        for customer in 0..customers {
            let sealer = block_on(vault.sealer::<Note>(&id(customer), &me, &why)).unwrap();
            for value in 0..(values / customers) as u64 {
                let sealed = sealer.seal(Note { body: Bytes::parse(&[7; 100]).unwrap() }, &value).unwrap();
                if value == 0 && customer == 0 {
                    sample.push(sealed);
                }
            }
        }
        clock.advance_days(1);
        block_on(vault.expire(&me, &why)).unwrap();
    }
    for _ in TIMES_ALL..20 {
        clock.advance_days(1);
        block_on(vault.expire(&me, &why)).unwrap();
    }
    let took = (0..TIMES_ALL).map(|_| {
        clock.advance_days(1);
        timed(|| assert_eq!(block_on(vault.expire(&me, &why)).unwrap().days.len(), 1))
    });
    let nanoseconds = nanoseconds(took.collect());
    for sealed in &sample {
        let grant = block_on(customer_vault::testing::grant::<Shipping>(&vault, &id(0))).unwrap();
        assert!(sealed.open(&grant, &0).unwrap().body().is_err(), "what has expired is not seen");
    }
    Did {
        what: Disk::Expire,
        krate: "customer-vault",
        way: match roots {
            Roots::File => "expire: destroy the day's key",
            Roots::Memory => "the same, root keys in memory",
        },
        of: values,
        nanoseconds,
        copies: GONE,
    }
}

/// Day and number, a sealed value.
type Rows = TableDefinition<'static, (u32, u64), &'static [u8]>;
const ROWS: Rows = Rows::new("values");
type Partition<'a> = TableDefinition<'a, u64, &'static [u8]>;

/// Among as many values of other days, before and after it.
fn peer_expire(values: usize) -> Vec<Did> {
    let folder = Folder::new("rows");
    let db = Database::create(folder.0.join("rows.redb")).unwrap();
    let sealed = Tink::new().wrap("c-1", &[7; 100]);
    let days = TIMES_ALL as u32 + 2;
    for day in 0..days {
        let write = db.begin_write().unwrap();
        {
            let mut rows = write.open_table(ROWS).unwrap();
            let name = format!("values of day {day}");
            let mut partition = write.open_table(Partition::new(&name)).unwrap();
            for value in 0..values as u64 {
                rows.insert((day, value), sealed.as_slice()).unwrap();
                partition.insert(value, sealed.as_slice()).unwrap();
            }
        }
        write.commit().unwrap();
    }
    let rows = (1..days - 1).map(|day| {
        timed(|| {
            let write = db.begin_write().unwrap();
            write.open_table(ROWS).unwrap().retain_in((day, 0)..(day + 1, 0), |_, _| false).unwrap();
            write.commit().unwrap();
        })
    });
    let rows = nanoseconds(rows.collect());
    let partition = (1..days - 1).map(|day| {
        let name = format!("values of day {day}");
        timed(|| {
            let write = db.begin_write().unwrap();
            assert!(write.delete_table(Partition::new(&name)).unwrap());
            write.commit().unwrap();
        })
    });
    let partition = nanoseconds(partition.collect());
    let did = |way, nanoseconds| Did {
        what: Disk::Expire,
        krate: "redb",
        way,
        of: values,
        nanoseconds,
        copies: "all of it",
    };
    vec![
        did("delete the rows of the day", rows),
        did("drop the day's table, where each has its own", partition),
    ]
}
