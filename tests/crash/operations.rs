//! Every operation that changes something: what it needs, what it does, and how it is seen that it is done.

use std::future::Future;
use std::pin::Pin;

use customer_vault::error::{Erased, Misuse, StoreError};
use customer_vault::testing::{grant, test_ground, tester};
use customer_vault::witness::Witness as _;
use customer_vault::*;
use pollster::block_on;

use crate::world::{
    Order, Place, Recommendation, Shipping, World, evidence, id, is_forgotten, later, options, order,
    settings,
};

type Running = Pin<Box<dyn Future<Output = Result<()>>>>;

pub struct Operation {
    pub name: &'static str,
    /// Where it begins.
    pub world: fn(u8) -> World,
    /// Whether the vault is open when it begins.
    pub open: bool,
    pub run: fn(Place) -> Running,
    /// Whether it is done; fails where it is neither done nor not done. Only where it is open.
    pub done: fn(&Place) -> bool,
    /// What it says where it was done before.
    pub already: fn(&Error) -> bool,
    /// What must be possible afterwards.
    pub then: fn(&Place),
}

const PLAIN: Operation = Operation {
    name: "",
    world: World::small,
    open: true,
    run: |_| Box::pin(async { Ok(()) }),
    done: |_| true,
    already: |_| false,
    then: |_| {},
};

pub fn operations() -> Vec<Operation> {
    let mut all = making();
    all.extend(subjects());
    all.extend(erasing());
    all
}

pub fn operation(name: &str) -> Operation {
    operations().into_iter().find(|operation| operation.name == name).unwrap()
}

fn making() -> Vec<Operation> {
    vec![
        Operation {
            name: "create",
            world: |_| World::empty(),
            open: false,
            run: |p| {
                Box::pin(async move {
                    let options = options(&p.clock).settings(settings(1));
                    options.create(p.store, p.keeper.clone(), p.keeper).await.map(drop)
                })
            },
            already: |why| *why == StoreError::Exists.into(),
            ..PLAIN
        },
        Operation {
            name: "open",
            // The registry, the calendar and the mark of time all have something to write.
            world: |height| World { day: later(World::empty().day, 9), ..World::small(height) },
            open: false,
            run: |p| {
                Box::pin(async move {
                    options(&p.clock).open(p.store, p.keeper.clone(), p.keeper).await.map(drop)
                })
            },
            ..PLAIN
        },
        Operation {
            name: "recover",
            world: |height| {
                let old = World::small(height).after(|p| p.hold("dan").unwrap());
                let store = old.store.snapshot();
                let new = old.after(|p| {
                    p.forget("alice").unwrap();
                    p.shred().unwrap();
                    block_on(p.vault().withdraw::<Shipping>(&id("dan"), &tester(), &test_ground())).unwrap();
                    block_on(p.vault().release_hold(&id("dan"), &tester(), &test_ground())).unwrap();
                    p.hold("carol").unwrap();
                });
                World { store, ..new }
            },
            open: false,
            run: |p| {
                Box::pin(async move {
                    let (keeper, me, why) = (p.keeper.clone(), tester(), test_ground());
                    options(&p.clock).recover(p.store, keeper.clone(), keeper, &me, &why).await.map(drop)
                })
            },
            done: |p| {
                let dan = p.unlocks::<Shipping>("dan") == Err(Erased::Purpose.into());
                is_forgotten(p.unlocks::<Shipping>("alice")) && dan
            },
            then: |p| {
                assert_eq!(p.unlocks::<LegalHold>("dan"), Err(Misuse::NotHeld.into()));
                let lines = block_on(p.keeper.inner.recall(1)).unwrap().len();
                assert_eq!(p.rows(b"j").len(), lines, "lines that were lost are written back");
                p.clock.advance_days(8);
                p.expire().unwrap();
                opens_under_hold(p, "carol");
            },
            ..PLAIN
        },
        Operation {
            name: "checkpoint",
            run: |p| Box::pin(async move { p.vault().checkpoint().await.map(drop) }),
            done: |p| block_on(p.vault().verify_log()).unwrap().checkpoint.is_some(),
            ..PLAIN
        },
    ]
}

fn subjects() -> Vec<Operation> {
    vec![
        Operation {
            name: "enroll",
            run: |p| {
                Box::pin(async move { p.vault().enroll(&id("eve"), [], &tester(), &test_ground()).await })
            },
            done: |p| match p.unlocks::<Shipping>("eve") {
                Ok(()) => true,
                Err(Error::NotEnrolled) => false,
                Err(why) => panic!("neither before nor after: {why}"),
            },
            already: |why| *why == Misuse::AlreadyEnrolled.into(),
            then: |p| {
                p.order("eve", 1);
                assert!(p.opens("eve", 1));
            },
            ..PLAIN
        },
        Operation {
            name: "enroll many",
            run: |p| {
                Box::pin(async move {
                    let people = ["eve", "fred"].map(|name| (id(name), []));
                    let results =
                        p.vault().enroll_many::<[Consent; 0]>(&people, &tester(), &test_ground()).await;
                    results.into_iter().collect()
                })
            },
            done: |p| {
                let there = ["eve", "fred"].map(|name| p.unlocks::<Shipping>(name));
                assert_eq!(there[0], there[1], "a chunk is done or not");
                match there[0] {
                    Ok(()) => true,
                    Err(Error::NotEnrolled) => false,
                    Err(why) => panic!("neither before nor after: {why}"),
                }
            },
            already: |why| *why == Misuse::AlreadyEnrolled.into(),
            then: |p| {
                p.order("fred", 1);
                assert!(p.opens("fred", 1));
            },
            ..PLAIN
        },
        Operation {
            name: "consent",
            run: |p| {
                Box::pin(async move {
                    let (me, why) = (tester(), test_ground());
                    p.vault().consent::<Recommendation>(&id("alice"), evidence(), &me, &why).await
                })
            },
            done: |p| consents(p, Erased::NoConsent),
            ..PLAIN
        },
        Operation {
            name: "consent after a withdrawal",
            world: |height| {
                World::small(height).after(|p| {
                    let (vault, alice, me, why) = (p.vault(), id("alice"), tester(), test_ground());
                    block_on(vault.consent::<Recommendation>(&alice, evidence(), &me, &why)).unwrap();
                    block_on(vault.withdraw::<Recommendation>(&alice, &me, &why)).unwrap();
                })
            },
            run: |p| {
                Box::pin(async move {
                    let (me, why) = (tester(), test_ground());
                    p.vault().consent::<Recommendation>(&id("alice"), evidence(), &me, &why).await
                })
            },
            done: |p| consents(p, Erased::Purpose),
            ..PLAIN
        },
        Operation {
            name: "withdraw",
            run: |p| {
                Box::pin(async move {
                    p.vault().withdraw::<Shipping>(&id("alice"), &tester(), &test_ground()).await.map(drop)
                })
            },
            done: |p| match p.unlocks::<Shipping>("alice") {
                Ok(()) => false,
                Err(Error::Erased(Erased::Purpose)) => true,
                Err(why) => panic!("neither before nor after: {why}"),
            },
            already: |why| *why == Erased::Purpose.into(),
            ..PLAIN
        },
        Operation {
            // The first sealer after a purpose was declared makes its key too.
            name: "sealer",
            run: |p| {
                Box::pin(async move {
                    let sealer = p.vault().sealer::<Order>(&id("alice"), &tester(), &test_ground()).await?;
                    sealer.seal(order(), &5).map(drop)
                })
            },
            ..PLAIN
        },
        Operation {
            name: "put",
            run: |p| {
                Box::pin(async move {
                    let (alice, me, why) = (id("alice"), tester(), test_ground());
                    let sealed = p.vault().sealer::<Order>(&alice, &me, &why).await?.seal(order(), &5)?;
                    p.vault().put(&alice, &5, &sealed, &me, &why).await
                })
            },
            done: |p| p.get("alice", 5).is_some() && p.opens("alice", 5),
            ..PLAIN
        },
        Operation {
            name: "put many",
            run: |p| {
                Box::pin(async move {
                    let (both, me, why) = ([id("alice"), id("dan")], tester(), test_ground());
                    let mut sealed = Vec::new();
                    for sealer in p.vault().sealers::<Order>(&both, &me, &why).await? {
                        sealed.push(sealer?.seal(order(), &5)?);
                    }
                    let records = [(&both[0], &5, &sealed[0]), (&both[1], &5, &sealed[1])];
                    p.vault().put_many(&records, &me, &why).await.into_iter().collect()
                })
            },
            done: |p| {
                let there = ["alice", "dan"].map(|name| p.get(name, 5).is_some() && p.opens(name, 5));
                assert_eq!(there[0], there[1], "a chunk is done or not");
                there[0]
            },
            ..PLAIN
        },
        Operation {
            name: "delete",
            run: |p| {
                Box::pin(async move {
                    let (alice, me, why) = (id("alice"), tester(), test_ground());
                    p.vault().delete::<Order>(&alice, &1, &me, &why).await.map(drop)
                })
            },
            done: |p| p.get("alice", 1).is_none(),
            ..PLAIN
        },
        Operation {
            name: "unlock",
            run: |p| Box::pin(async move { grant::<Shipping>(p.vault(), &id("alice")).await.map(drop) }),
            ..PLAIN
        },
        Operation {
            name: "unlock many",
            run: |p| {
                Box::pin(async move {
                    let (both, hour) = ([id("alice"), id("dan")], std::time::Duration::from_secs(3600));
                    let (me, why, scope) = (tester(), test_ground(), Scope::everyone());
                    let token = p.vault().issue::<Shipping>(&me, &why, hour, scope).await?;
                    let grants = p.vault().unlock_many::<Shipping>(&token, &both).await?;
                    grants.into_iter().try_for_each(|grant| grant.map(drop))
                })
            },
            ..PLAIN
        },
    ]
}

fn consents(p: &Place, before: Erased) -> bool {
    match p.unlocks::<Recommendation>("alice") {
        Ok(()) => true,
        Err(Error::Erased(why)) if why == before => false,
        Err(why) => panic!("neither before nor after: {why}"),
    }
}

/// Alice shall be forgotten with all that the law had kept of her, Dan but for it.
fn due(height: u8) -> World {
    let world = World::small(height).after(|p| {
        p.forget("alice").unwrap();
        p.clock.advance_days(7);
    });
    world.after(|p| {
        p.forget("dan").unwrap();
    })
}

fn erasing() -> Vec<Operation> {
    vec![
        Operation {
            name: "forget",
            run: |p| {
                Box::pin(async move {
                    let request = Forget::by(&tester(), &test_ground()).requested_by("alice");
                    p.vault().forget(&id("alice"), request).await.map(drop)
                })
            },
            done: |p| is_forgotten(p.unlocks::<Shipping>("alice")),
            already: |why| *why == Erased::Forgotten.into(),
            ..PLAIN
        },
        Operation {
            name: "undo forget",
            world: |height| {
                World::small(height).after(|p| {
                    let request = Forget::by(&tester(), &test_ground());
                    block_on(p.vault().forget(&id("alice"), request)).unwrap();
                })
            },
            run: |p| {
                Box::pin(async move { p.vault().undo_forget(&id("alice"), &tester(), &test_ground()).await })
            },
            done: |p| !is_forgotten(p.unlocks::<Shipping>("alice")),
            already: |why| *why == Misuse::NothingToUndo.into(),
            then: |p| assert!(p.opens("alice", 1)),
            ..PLAIN
        },
        Operation {
            name: "enroll again",
            world: |height| {
                World::small(height).after(|p| {
                    p.forget("alice").unwrap();
                })
            },
            run: |p| {
                Box::pin(
                    async move { p.vault().enroll_again(&id("alice"), [], &tester(), &test_ground()).await },
                )
            },
            done: |p| !is_forgotten(p.unlocks::<Shipping>("alice")),
            already: |why| *why == Misuse::AlreadyEnrolled.into(),
            then: |p| {
                assert!(!p.opens("alice", 1), "what was sealed before stays dead");
                p.order("alice", 2);
                assert!(p.opens("alice", 2));
            },
            ..PLAIN
        },
        Operation {
            name: "hold",
            run: |p| Box::pin(async move { p.vault().hold(&id("alice"), &tester(), &test_ground()).await }),
            done: is_held,
            ..PLAIN
        },
        Operation {
            name: "release hold",
            world: |height| {
                World::small(height).after(|p| {
                    p.hold("alice").unwrap();
                    p.clock.advance_days(8);
                    p.expire().unwrap();
                    assert!(!p.rows(b"h").is_empty());
                })
            },
            run: |p| {
                Box::pin(async move { p.vault().release_hold(&id("alice"), &tester(), &test_ground()).await })
            },
            done: |p| !is_held(p),
            already: |why| *why == Misuse::NotHeld.into(),
            then: |p| {
                assert_eq!(p.rows(b"h").len(), 0, "shelves that nothing opens");
                p.hold("alice").unwrap();
                assert!(is_held(p));
            },
            ..PLAIN
        },
        Operation {
            name: "expire",
            world: |height| {
                World::small(height).after(|p| {
                    p.hold("alice").unwrap();
                    p.clock.advance_days(8);
                })
            },
            run: |p| Box::pin(async move { p.vault().expire(&tester(), &test_ground()).await.map(drop) }),
            done: |p| {
                let yesterday = later(World::empty().day, 7);
                let notes = block_on(p.vault().expiry_notes()).unwrap();
                assert!(notes.len() < 2, "one note for the days that went together");
                notes.len() == 1 && p.rows_until(b'd', yesterday) == 0 && p.rows(b"x").is_empty()
            },
            then: |p| opens_under_hold(p, "alice"),
            ..PLAIN
        },
        Operation {
            name: "shred",
            world: due,
            run: |p| Box::pin(async move { p.vault().shred(&tester(), &test_ground()).await.map(drop) }),
            done: |p| {
                assert!(is_forgotten(p.unlocks::<Shipping>("alice")));
                let due = p.rows_until(b'w', p.clock.today());
                due == 0 && p.rows(b"x").is_empty() && p.rows(b"v").len() == 3
            },
            then: |p| {
                let (me, why) = (tester(), test_ground());
                block_on(p.vault().enroll_again(&id("alice"), [], &me, &why)).unwrap();
                p.order("alice", 2);
                let listed = block_on(p.vault().list::<Order, u64>(&id("alice"), &me, &why)).unwrap();
                assert_eq!(listed.len(), 1);
            },
            ..PLAIN
        },
        Operation {
            name: "settle",
            world: |height| {
                due(height).after(|p| {
                    p.shred().unwrap();
                })
            },
            run: |p| Box::pin(async move { p.vault().settle(&tester(), &test_ground()).await.map(drop) }),
            done: |p| p.rows(b"z").len() == 2 && p.rows(b"r").is_empty() && p.roots().len() == 1,
            ..PLAIN
        },
    ]
}

pub fn opens_under_hold(p: &Place, name: &str) {
    let held = block_on(grant::<LegalHold>(p.vault(), &id(name))).unwrap();
    let view = p.get(name, 1).unwrap().open(&held, &1).unwrap();
    assert!(view.address().is_ok(), "a held record survives its day");
}

fn is_held(p: &Place) -> bool {
    match p.unlocks::<LegalHold>("alice") {
        Ok(()) => true,
        Err(Error::Misuse(Misuse::NotHeld)) => false,
        Err(why) => panic!("neither before nor after: {why}"),
    }
}
