//! Expiring a day to which few or many values were sealed, beside deleting as many rows.

use customer_vault::keeper::{FileKeeper, FileSecret};
use customer_vault::store::RedbStore;
use customer_vault::testing::{ManualClock, test_ground, tester};
use customer_vault::value::Bytes;
use customer_vault::{Day, Options, SubjectId, Vault, purposes, record};
use pollster::block_on;

use crate::common::disk::{BareRedb, Folder, Rows};
use crate::common::rounds::{Beside, median, once};
use crate::common::table::Report;
use crate::common::{asked, measured};

purposes! {
    Shipping: Contract = 1 "shipping";
}

record! {
    struct Visit[u64] / SealedVisit / VisitView in visit = "visit" {
        body: Bytes = 1 "body", behaviour, for [Shipping: 20 days];
    }
}

const SUBJECTS: usize = 10;
/// Days to which so many values are sealed.
const DAYS: usize = 9;
/// Of which the bare table holds the rows too.
const OTHER_DAYS: usize = 4;
const LIMIT: &str = "deleting the day's rows from a bare redb table of five days, one transaction";
/// The vault keeps so many values of each subject and day; that it keeps them makes no difference to the day.
const KEPT: usize = 10;

struct World {
    vault: Vault,
    clock: ManualClock,
    sealed_len: usize,
}

impl World {
    fn new(folder: &Folder, values: usize) -> Self {
        let (me, why) = (tester(), test_ground());
        let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
        let store = RedbStore::create(folder.join(&format!("{values}.redb"))).unwrap();
        let secret = FileSecret::generate().unwrap().0;
        let keeper = FileKeeper::create(folder.join(&format!("{values}.keys")), secret).unwrap();
        let options = Options::new().record::<Visit>().clock(clock.clone());
        let vault = block_on(options.create(store, keeper.clone(), keeper)).unwrap();
        let id = |number: usize| SubjectId::new(&format!("customer {number}")).unwrap();
        for number in 0..SUBJECTS {
            block_on(vault.enroll(&id(number), [], &me, &why)).unwrap();
        }
        let mut sealed_len = 0;
        for _ in 0..DAYS {
            for number in 0..SUBJECTS.min(values) {
                let sealer = block_on(vault.sealer::<Visit>(&id(number), &me, &why)).unwrap();
                for value in 0..values / SUBJECTS.min(values) {
                    let sealed =
                        sealer.seal(Visit { body: Bytes::parse(&[7; 100]).unwrap() }, &(value as u64));
                    let sealed = sealed.unwrap();
                    sealed_len = sealed.as_bytes().len();
                    if value < KEPT {
                        block_on(vault.put(&id(number), &(value as u64), &sealed, &me, &why)).unwrap();
                    }
                }
            }
            clock.advance_days(1);
        }
        // To the last day on which something opens.
        for _ in 0..20 - DAYS {
            clock.advance_days(1);
            block_on(vault.expire(&me, &why)).unwrap();
        }
        World { vault, clock, sealed_len }
    }

    fn expire(&self) -> std::time::Duration {
        self.clock.advance_days(1);
        let (done, took) = once(|| block_on(self.vault.expire(&tester(), &test_ground())).unwrap());
        assert_eq!(done.days.len(), 1, "a day was over");
        took
    }
}

pub fn run(report: &mut Report) {
    let folder = Folder::new("days");
    let many = asked("VALUES", if measured() { 1_000_000 } else { 100 });
    let [few_world, many_world] = [10, many].map(|values| World::new(&folder, values));
    let (many_times, few_times) = (0..DAYS).map(|_| (many_world.expire(), few_world.expire())).unzip();
    let nanos = |time: std::time::Duration| time.as_secs_f64() * 1e9;
    let of = Beside { ours: nanos(median(many_times)), limit: nanos(median(few_times)) };
    report.at_most(&format!("expire a day of {many} values, durable"), "a day of 10 values", of, 1.5);

    // Names that are spread as a hash's, and rows as long as the sealed values; those of the other days stay.
    let bare = BareRedb::new(&folder.join("bare.redb"));
    let name = |number: usize| {
        let spread = (number as u128).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        spread.to_be_bytes().to_vec()
    };
    let mut names: Vec<Vec<u8>> = (0..OTHER_DAYS * many + many).map(name).collect();
    let gone = names[..many].to_vec();
    names.sort_unstable();
    for names in names.chunks(500_000) {
        let rows: Rows = names.iter().map(|name| (name.clone(), vec![7; many_world.sealed_len])).collect();
        bare.commit(&rows);
    }
    let ((), deleting) = once(|| bare.delete(&gone));
    let of = Beside { ours: of.ours, limit: nanos(deleting) };
    report.at_least("the same", LIMIT, of, 1000.0);
}
