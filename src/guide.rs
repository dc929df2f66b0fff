//! The guide: how to declare, run and end things. Each chapter is a page, and its code is compiled.

/// # Declaring
///
/// A declaration reads like the page that a data protection officer signs:
///
/// ```
/// use customer_vault::value::{AsEntered, Email, OrderLine, Phone, PostalAddress, SearchQuery};
/// use customer_vault::{purposes, record};
///
/// purposes! {
///     /// Deliver the parcel.
///     pub Shipping: Contract = 1 "shipping";
///     /// Books of account (HGB § 257: ten years).
///     pub Invoicing: LegalObligation = 2 "invoicing";
///     /// Recommend goods from what the customer looked at.
///     pub Recommendation: Consent = 3 "recommendation";
/// }
///
/// record! {
///     /// What is known of a customer: one a subject, so no id.
///     pub struct Profile / SealedProfile / ProfileView in profile = "profile", reserved [2 "fax"] {
///         /// To send the bill to.
///         pub email: Email = 1 "email", basic, for [Shipping: 90 days, Invoicing: 10 years];
///         /// For the driver; kept as it was typed, since old rows do not all parse.
///         pub phone: Option<AsEntered<Phone>> = 3 "phone", basic sensitive, for [Shipping: 90 days], padded 32;
///     }
/// }
///
/// record! {
///     /// One search. What grows is a record for each event, not a longer list: each has its own day.
///     pub struct Search[u64] / SealedSearch / SearchView in search = "search" {
///         /// What was typed.
///         pub query: SearchQuery = 1 "query", behaviour, for [Recommendation: 6 months];
///     }
/// }
/// ```
///
/// - Numbers and labels stand in sealed bytes and are never used again; put those of a field that goes into
///   `reserved`. Rust names may change.
/// - Fields with the same purposes and periods share a cell, and so cost one lockbox a purpose together. `alone` keeps a
///   field out of it: updating the others then never touches it.
/// - A period counts from sealing, or from the day given to `seal_as_of`, and ends with a UTC day. There is no "forever".
/// - Adding a purpose to a field does not open what is already sealed: purposes travel with the data.
/// - `padded 32` hides the length of a value up to steps of 32 bytes.
/// - The vault stores what was declared and refuses to open with a contradiction: see
///   [`Contradiction`](crate::error::Contradiction). [`Vault::registry`](crate::Vault::registry) prints the register of
///   processing (GDPR Art. 30, PIPL Art. 56).
pub mod declaring {}

/// # Operating
///
/// Three calls a day, in any order, by a job or a task of the service:
///
/// ```no_run
/// # async fn daily(vault: &customer_vault::Vault) -> customer_vault::Result<()> {
/// use customer_vault::{Actor, Ground};
///
/// let (job, daily) = (Actor::service("vault-daily")?, Ground::new("daily")?);
/// vault.expire(&job, &daily).await?; // destroys the days that are over
/// vault.shred(&job, &daily).await?;  // destroys what was forgotten or withdrawn and whose grace is over
/// vault.settle(&job, &daily).await?; // destroys old roots, signs certificates
/// # Ok(()) }
/// ```
///
/// Each is safe at any time and in any number of processes; what a crash left undone, the next one finishes. Where two
/// meet, one may be told [`Error::Busy`](crate::Error::Busy): run it again. If none of
/// them, nor any unlock, ran for more than a week, the clock counts as jumped and an operator has to
/// [`confirm_time`](crate::Vault::confirm_time) first: a wrong clock must not destroy ten years of keys.
///
/// **Backups.** Sealed data may be backed up anywhere and restored from any day. The vault's store holds the key tables:
/// restore always the newest copy, and make one after each shred or expiry. See [`backups`].
///
/// **OpenBao and HashiCorp Vault** (feature `transit`): `keeper::TransitKeeper` has a key for each root there, and
/// `witness::KvWitness` remembers in a key-value store. The same holds for snapshots of their servers: state for how long
/// they are kept (`keeper::ServerCopies`), so that certificates say when the last of them is gone, and keep the witness on
/// another server than the keeper, with snapshots of its own. What their tokens may do is printed with the two types.
///
/// **What an unlock costs.** One multi-key read of the store and one durable commit of the log, shared by all that wait
/// at the time. Opening and sealing are computation only.
///
/// **Runtimes.** Taking handles is `async` and needs no particular runtime. The redb store and the file keeper do their
/// file work in the calling task (a commit waits for redb's own thread); opening a keeper with a passphrase takes a
/// noticeable part of a second.
pub mod operating {}

/// # Keepers, witnesses and keys
///
/// The **keeper** holds what unwraps the root; whoever has it and the store has everything, and whoever loses it has nothing.
/// The **witness** remembers, outside the store, what must not come undone. Choose by who must not be able to take them:
///
/// | | keeper | witness | processes |
/// | --- | --- | --- | --- |
/// | a small shop, one host | [`FileKeeper`](crate::keeper::FileKeeper) | the same | one, or several of the host |
/// | an HSM or smart card | `Pkcs11Keeper` (feature `pkcs11`) | a file, another PostgreSQL, a key-value store | as the module allows |
/// | OpenBao or HashiCorp Vault | `TransitKeeper` (feature `transit`) | `KvWitness` on **another** server, or another PostgreSQL | any, on any hosts |
///
/// A key service or a token has no memory of its own: give the vault a witness beside it. Where there is truly none,
/// [`NoWitness`](crate::witness::NoWitness) says so in every receipt. [`custody`](crate::Vault::custody) and
/// [`doctor`](crate::Vault::doctor) say what stands; a certificate prints what the keeper's destruction is worth.
///
/// **Going from one to another**, while the service runs: open the vault in all processes with a
/// [`Handover`](crate::keeper::Handover), replace the root, and open with the new keeper alone when nothing is left with the
/// old one. A witness changes with [`Both`](crate::witness::Both).
///
/// ```
/// use customer_vault::keeper::Handover;
/// use customer_vault::{KeyKind, Suite};
/// # use customer_vault::{testing::{MemoryKeeper, test_ground, tester}, *};
/// # use customer_vault::store::MemoryStore;
/// # pollster::block_on(async {
/// # let (store, old, new) = (MemoryStore::new(), MemoryKeeper::new(), MemoryKeeper::new());
/// # let witness = MemoryKeeper::new();
/// # let (me, why) = (tester(), test_ground());
/// # drop(Options::new().create(store.clone(), old.clone(), witness.clone()).await?);
/// # let options = Options::new();
/// let handover = Handover::new(old, new);
/// let vault = options.open(store, handover.clone(), witness).await?;
/// vault.replace_root(&me, &why).await?;
/// // Every day, as always:
/// vault.settle(&me, &why).await?;
/// if handover.remaining().await? == 0 {
///     println!("from the next start on, open with the new keeper alone");
/// }
///
/// // Keys that may have leaked, or are old enough:
/// vault.change_key(KeyKind::Tokens, &me, &why).await?; // tokens under the former key live on
/// vault.retire_keys(KeyKind::Tokens, &me, &why).await?; // until this, which refuses while one is alive
/// let change = vault.change_key(KeyKind::Signing, &me, &why).await?;
/// println!("{}", change.note.unwrap_or_default()); // signed by both keys: publish it
/// vault.use_suite(Suite::XChaCha20Poly1305, &me, &why).await?; // for new seals; `renew` seals old ones again
///
/// // Whether all keys open under the root of now: before the old keeper is deleted.
/// let coverage = vault.coverage(&me, &why, |so_far| println!("{} subjects", so_far.subjects)).await?;
/// assert!(coverage.holds());
/// # Ok::<(), Error>(()) }).unwrap();
/// ```
///
/// **Blind indexes.** After `change_key(KeyKind::Index, …)`, [`index`](crate::Vault::index) gives values under the new key and
/// [`former_index`](crate::Vault::former_index) those under the one before. Look people up by both, write the new value into
/// each row in batches (the shop has the values; the vault has not), and then `retire_keys(KeyKind::Index, …)`.
///
/// **What a former key still opens.** It lies in copies of the store from before, under the root of then. So a key that has
/// leaked is over for the vault at once, and for copies when that root is destroyed: `replace_root`, and the restore window.
///
/// **The lookup key.** A subject's entry lies where a keyed hash of its id puts it. The vault does not know the ids: the shop hands
/// them in again, in batches, from one process or many, and again after a crash. Whoever is enrolled or changed meanwhile comes to
/// lie under the new key by that; readers look at both places and never wait.
///
/// ```
/// use customer_vault::KeyKind;
/// # use customer_vault::{testing::{MemoryKeeper, test_ground, tester}, *};
/// # pollster::block_on(async {
/// # let vault = testing::ephemeral(Options::new()).await?;
/// # let (me, why) = (tester(), test_ground());
/// # vault.enroll(&SubjectId::new("c-1")?, [], &me, &why).await?;
/// # let batches = [vec![SubjectId::new("c-1")?]];
/// vault.change_key(KeyKind::Lookup, &me, &why).await?;
/// for ids in batches {
///     let moved = vault.move_subjects(&ids, &me, &why).await?;
///     println!("{} moved, {} unknown", moved.moved, moved.unknown);
/// }
/// let moves = vault.moves(|so_far| println!("{} left so far", so_far.left)).await?;
/// assert_eq!((moves.left, moves.faults), (0, 0));
/// vault.retire_keys(KeyKind::Lookup, &me, &why).await?; // looks at every entry itself, and refuses while one is left
/// # Ok::<(), Error>(()) }).unwrap();
/// ```
///
/// It never leaves the process; who has it and the store can test whether an id is in it, and open nothing. After a change a former
/// key no longer finds entries. Of people who were enrolled under it, it still finds what is named after them for good: their lines
/// of the journal (who was forgotten, withdrew, was held), and how many records they have.
/// Change it where it has leaked, not as a routine: SECURITY.md lists what a change does not hold against older copies of the
/// store that are recovered, restored or put back.
pub mod custody {}

/// # Backups
///
/// [`Vault::backup`](crate::Vault::backup) writes all rows of one moment of the store, or what has changed since another
/// backup, as a signed part: to a file or any other stream. [`verify_backup`](crate::Vault::verify_backup) says of the parts
/// whether they are whole, in order and this vault's, whether they open with the keeper of today, until when, and how many
/// subjects could come back with them. [`Options::restore`](crate::Options::restore) puts them into an empty store, does
/// every erasure again that the witness remembers, and only then opens. The module's page, [`backup`](mod@crate::backup),
/// has the code; `examples/drill.rs` runs all of it.
///
/// **What to back up, and where.** The store, every night or after each `expire`: an older copy opens until the restore window
/// after the next root is over, and then for nobody ([`RolledBack::Gone`](crate::error::RolledBack::Gone)).
/// [`doctor`](crate::Vault::doctor) says when the newest backup is older than the last replacement of the root, and when
/// backups are kept longer than the window. It knows the backups that the vault has made, not those of `pg_dump`.
///
/// The keeper's files, apart from the store, in **one** copy that is replaced and never archived: a copy of them outlives what
/// the keeper destroys. The witness with them, or by its own database's means. Neither is in a backup of the store.
///
/// **A full backup or an increment.** An increment compares versions row by row with the index of the backup that it follows, so
/// that index has to be kept, and to be read once; the part itself need not be. To restore, all parts from the full one on are
/// needed. After a restore every row has a new version: make a full backup.
///
/// **Who can read a backup.** It holds what the store holds: wrapped keys and ciphertext, pseudonyms, and the log, whose actors
/// and grounds are in clear. Without the keeper and its secret nothing in it opens. With them it opens like the store of its day,
/// and then a fence is policy: the keys of whoever was forgotten and not yet shredded are there. This table was made by
/// trying, and a test makes it again:
///
#[doc = include_str!("../docs/who_can_read.md")]
///
/// So an erasure reaches the backups when the root that was left is destroyed, at the end of the restore window, wherever copies
/// lie, and not before; and a copy of the *keeper* from before keeps every backup of its time open for ever.
/// [`who_can_read`](crate::Vault::who_can_read) says for one subject which roots and backups are left, and until which date.
/// It counts what the vault can know: no copy of the keeper, no plaintext that was kept.
///
/// **If store, keeper and witness are all put back to one moment, nothing here can tell.** What was forgotten after it opens
/// again, unless its root was destroyed before.
///
/// **Rehearse.** [`Vault::drill`](crate::Vault::drill) makes a backup, restores it into a scratch store beside the vault,
/// compares keys and opens values of a sample, forgets somebody there, restores again, and finds them erased. What it makes,
/// activates and destroys stays in memory: the vault's keeper unwraps for it, and nothing else. Its report is a signed note.
/// The scratch stores and the file hold all that the vault holds: delete them.
///
/// **Interrupted.** A backup without its end is refused. A restore that was interrupted leaves a store that says
/// [`StoreError::Unfinished`](crate::error::StoreError::Unfinished); begin it again, or, where that says that the store is
/// not empty, go on with [`recover`](crate::Options::recover). On PostgreSQL a backup holds one transaction open, which
/// keeps `VACUUM` from what it can see; `idle_in_transaction_session_timeout` has to be longer than the slowest write. On
/// redb the file grows by what is written meanwhile.
pub mod backups {}

/// # Forgetting
///
/// ```
/// # use customer_vault::{testing, *};
/// # purposes! { pub Shipping: Contract = 1 "shipping"; }
/// # record! { pub struct Note / SealedNote / NoteView in note = "note" {
/// #     pub text: value::FreeText = 1 "text", basic, for [Shipping: 30 days]; } }
/// # pollster::block_on(async {
/// # let vault = testing::ephemeral(Options::new().record::<Note>()).await?;
/// # let (actor, ground) = (testing::tester(), testing::test_ground());
/// # let id = SubjectId::new("c-1")?;
/// # vault.enroll(&id, [], &actor, &ground).await?;
/// let open_order = Day::from_ymd(2099, 1, 31)?;
/// let request = Forget::by(&actor, &ground).requested_by("Alice, by e-mail").keeping::<Shipping>(open_order);
/// let receipt = vault.forget(&id, request).await?;
/// assert_eq!(receipt.stays, [(PurposeId::of::<Shipping>(), open_order)]);
/// # Ok::<(), Error>(()) }).unwrap();
/// ```
///
/// | level | from when | what holds it |
/// | --- | --- | --- |
/// | fenced | `forget` has returned | policy, kept by store, witness and every process: nothing opens or seals |
/// | unreachable | `shred` has returned, after the grace period | the keys are not in the store any more |
/// | destroyed | `settle` has destroyed the root that was left | no copy of the store from before opens |
/// | final | the certificate is signed | window and grants are over |
///
/// What stays is *restricted*: purposes whose basis is a legal obligation until the longest period ever declared for them
/// is over, and what `keeping` names. Other purposes have no key any more, so what was sealed for both opens for the one
/// that stays and for nothing else. Enrolling the same id again is an error until
/// [`enroll_again`](crate::Vault::enroll_again), and what was sealed before stays dead.
///
/// Give `reference` and `opening` of the receipt to the person and keep neither: the certificate proves with them who
/// asked, and without them leads to nobody.
pub mod forgetting {}

/// # PostgreSQL, and several processes
///
/// ```no_run
/// # #[cfg(feature = "postgres")]
/// # async fn open(keeper: customer_vault::keeper::FileKeeper, order: customer_vault::Options) -> customer_vault::Result<()> {
/// use customer_vault::store::{PostgresOptions, PostgresStore};
///
/// let url = std::env::var("DATABASE_URL").unwrap_or_default();
/// let store = PostgresStore::connect(PostgresOptions::new(&url)?.schema("vault")).await?;
/// let vault = order.open(store, keeper.clone(), keeper).await?;
///
/// // Keeps leases alive, and takes in what other processes fence. Where it ends, open things stop within the bound.
/// tokio::spawn({
///     let vault = vault.clone();
///     async move {
///         loop {
///             let _ = vault.watch().await; // the database was out of reach: try again
///             tokio::time::sleep(std::time::Duration::from_millis(200)).await;
///         }
///     }
/// });
/// # Ok(()) }
/// ```
///
/// **One table** of three columns of bytes holds the vault: wrapped keys, ciphertext, the log. `connect` makes it where it
/// is missing; a service whose role may not make tables needs `SELECT, INSERT, UPDATE, DELETE` on it, and nothing else.
/// Two vaults take two tables.
///
/// **Several processes** may have the vault open. `forget`, `withdraw`, `revoke` and `freeze` return when all of them have
/// seen it or have lost their lease: a little more than the bound (one second unless the vault was made with another). A
/// process that cannot reach the database opens nothing after its lease; one that was stopped and resumed neither.
/// `shred`, `expire` and `settle` may run in any of them, at the same time too: one wins a step, the others see it, and may
/// be told [`Error::Busy`](crate::Error::Busy).
///
/// **Together with the shop's own rows**: [`Vault::staged`](crate::Vault::staged) makes a change a list of statements for the
/// shop's own transaction: one change a transaction, its statements last. They take row locks that hold up forgets until the
/// transaction ends.
///
/// **What the promises need of the server**: `fsync`, `full_page_writes` and `synchronous_commit` as they are by default (the
/// store sets the last one itself, and keeps a stronger one). With standbys that may be promoted, `synchronous_standby_names`
/// must name them, `ANY k (…)` with more than half of all servers that may vote for a promotion (`ANY 1 (s1, s2)` for a
/// primary and two standbys), and only a standby that has the newest position may be promoted: then what `forget` has
/// acknowledged is on whatever is promoted, and an old primary that does not know it was replaced commits nothing, so that
/// no process keeps a lease by it. Give each standby a replication slot, and the vault's role `pg_monitor`: `settle` destroys a
/// root only when every standby that is known, present or not, has what was committed
/// ([`StoreError::Behind`](crate::error::StoreError::Behind)). [`Vault::doctor`](crate::Vault::doctor) says what is missing.
/// `tests/postgres_failover.rs` is the rehearsal.
///
/// Where several processes write chunks of a thousand at once, raise `max_pred_locks_per_transaction` (64 by default; 512 keeps
/// what a chunk looks at apart): the server keeps in memory what a serializable transaction has read, and where that is too
/// much it takes the whole table, and has more transactions made again than need be.
///
/// **Distributed databases** that speak the protocol have not been tested. The store asks of them: SERIALIZABLE isolation
/// across nodes; `40001` where a transaction must be made again (the store does so, 12 times, then the vault reads again);
/// `bytea`, `unnest` of several arrays, data-modifying `WITH`, `INSERT … ON CONFLICT`, `pg_catalog` for a table's columns,
/// and reads that are never older than the newest acknowledged commit (no follower reads). Rows are placed by their leading
/// bytes: the log's rows (`o`) grow at the end of a lane, each lane at a place of its own; entries (`s`) are spread evenly;
/// the epoch row and the fence row (`f`) are single rows that everything reads.
pub mod postgres {}

/// # Sealed values in columns of your own
///
/// A [`Sealed`](crate::Sealed) is bytes: a column of type `bytea`, `NOT NULL` or not. Only sealed values have
/// implementations for drivers; plaintext has none, so that it cannot be bound by mistake.
///
/// - **tokio-postgres, postgres** (feature `postgres-types`): bind `&sealed`, read `row.get::<_, SealedOrder>("address")`;
///   `Option<Sealed<_>>` for a column that may be null, `Vec<Sealed<_>>` for `unnest($1::bytea[])`, which inserts any
///   number of rows in one statement.
/// - **sqlx 0.9** (feature `sqlx-0_9`, which needs Rust 1.94 as `sqlx` does, where the crate itself needs 1.90): the same
///   with `bind`, `query_as` and `FromRow`. In `query!` and `query_as!` a column says its type in its name, and a parameter
///   is bound as what it is: `SELECT address AS "address: SealedOrder" FROM orders WHERE id = $1`, and
///   `query!("UPDATE orders SET address = $1", &sealed as &SealedOrder)`.
/// - **diesel, SeaORM, others**: `as_bytes()` to write, `Sealed::from_bytes` to read, in a column of bytes.
///
/// What is read is checked for its form: bytes that are no sealed value are an error of the driver's, without the bytes.
/// That a value belongs to the row it stands in shows when it is opened: the caller states subject and record id, and a
/// value from another row does not open.
///
/// **Looking somebody up** by e-mail: put [`Vault::index`](crate::Vault::index) of the address into a column
/// `bytea UNIQUE`, and ask for it with the same call. It is equal for equal addresses, and tells nothing else to whoever has
/// not the vault's key. Clear it when you forget the person: the vault cannot. An index value that stays behind still tells
/// a process that has the vault open whether an address that it guesses was once there, until the index key is changed.
pub mod columns {}

/// # A shop's service
///
/// `examples/shop_axum.rs` is a whole one to start from, on axum and tokio: accounts, orders, support, shipping, marketing,
/// exports, and being forgotten. Without arguments it shows itself. On PostgreSQL a customer's row and their enrolment, or
/// the row's deletion and the forget, are one transaction ([`Vault::staged`](crate::Vault::staged)); on redb it shows what has
/// to be done without that. This is a session, its secrets cut short; both stores answer the same.
///
/// ```sh
/// export SHOP_VAULT_KEY=$(openssl rand -hex 32)         # keep it: without it the data is lost
/// export SHOP_OPERATOR_SECRET=$(openssl rand -hex 32)
/// cargo run --release --example shop_axum -- --redb shop --create &
/// # or: --features postgres --example shop_axum -- --postgres postgres://shop@127.0.0.1/shop --create
/// ask() { curl -sS -H 'content-type: application/json' -w ' %{http_code}\n' "$@"; }
///
/// ask localhost:8080/customers -d '{"name": "Ann Baker", "email": "ann@example.org", "phone": "0114 496 0787",
///     "address": {"lines": "1 Long Street\nHalifax", "country": "GB"}}'
/// # {"customer":"c-b4b8f0…","session":"d54b11…"} 201
/// ask localhost:8080/customers -d '{"name": "Ann Baker", "email": "4111 1111 1111 1111", "address": …}'
/// # {"error":"invalid","field":"email","why":"not of the required form"} 422
/// ann='authorization: Bearer d54b11…'
/// ask localhost:8080/orders -H "$ann" -d '{"name": "Ann Baker", "address": {"lines": "1 Long Street\nHalifax",
///     "country": "GB"}, "lines": [{"item": "Kettle", "quantity": 1, "cents": 4900}],
///     "payment": {"token": "tok_8fJ2kq", "last_four": "4242"}}'
/// # {"order":1} 201
/// ask -X PUT localhost:8080/me/address -H "$ann" -d '{"lines": "2 Short Lane\nLeeds", "country": "GB"}'
/// # 204
///
/// ask localhost:8081/tokens -H "authorization: Bearer $SHOP_OPERATOR_SECRET" \
///     -d '{"to": "sue", "for": "support", "hours": 8}'
/// # {"token":"cv1.AUgBEAGiBO6B…"} 201
/// ask localhost:8080/support/customers -H 'authorization: Bearer cv1.AUgB…' -d '{"email": "ann@example.org"}'
/// # {"customer":"c-b4b8f0…","email":"ann@example.org","name":"Ann Baker","phone":"+441144960787"} 200
/// ask localhost:8080/orders/1/label -H 'authorization: Bearer cv1.AUgB…'
/// # {"error":"denied"} 403, and the refusal is in the log
/// ask localhost:8081/tokens -H "authorization: Bearer $SHOP_OPERATOR_SECRET" \
///     -d '{"to": "carrier", "for": "shipping", "hours": 8, "order": 1}'
/// # {"token":"cv1.AWsBEAGiBO6B…"} 201
/// ask localhost:8080/orders/1/label -H 'authorization: Bearer cv1.AWsB…'
/// # {"address":{"country":"GB","lines":["1 Long Street","Halifax"]},"name":"Ann Baker","order":1,"phone":null} 200
///
/// ask localhost:8080/me/export -H "$ann"
/// # {"customer":"c-b4b8f0…","marketing":false,"name":"Ann Baker","orders":[{"lines":[…],"paid":"***4242",…}],…} 200
/// ask -X POST localhost:8080/me/forget -H "$ann"
/// # {"keys destroyed from":"2026-11-29","opening":"512ff7…","reference":"23b0b7…",
/// #  "stays":{"invoicing":"2036-11-29","shipping":"2026-12-22"}} 200
/// ask localhost:8080/me -H "$ann"
/// # {"error":"who-are-you"} 401
/// ask localhost:8080/support/customers -H 'authorization: Bearer cv1.AUgB…' -d '{"email": "ann@example.org"}'
/// # {"error":"not-found"} 404
/// ask localhost:8080/orders/1/label -H 'authorization: Bearer cv1.AWsB…'
/// # {"address":{"country":"GB","lines":["1 Long Street","Halifax"]},…} 200: her order is open, and ships
/// ```
///
/// What is easily done wrong, and how it is done there:
///
/// - **A rejected body is quoted** by `axum::Json` and most extractors: a card number in the wrong field would come back, and
///   go into logs. The service has an extractor of its own, whose rejection is one word.
/// - **Logs** have the route's pattern, never the path; the error's code; nothing of the request. An address to look for is
///   sent in a body. A database's message is dropped: that of a unique violation quotes the row.
/// - **Tokens the service uses itself** are scoped to one customer and last a minute. Every token is a row, so what is needed
///   for each sign-up is kept for a day instead, and reaches one field.
/// - **After a consent** the profile is renewed: what was sealed before it has no lockbox for the new purpose.
/// - **A value is sealed once** and wiped. Where a transaction has to be made again ([`Error::Busy`](crate::Error::Busy)), the
///   record is parsed again from the form.
/// - **A second pool**: a request that holds a connection and waits for the vault must not share the vault's.
/// - **Equal addresses** have equal index values if they are equal after [`Email`](crate::value::Email) has read them: the
///   domain in small letters, the part before the `@` as it was typed. A shop that wants `Ann@` and `ann@` to be one account
///   makes it small before.
/// - **Which status**: `denied` is 401 for a token that is none or is over, 403 for one that may not; `erased` is 410,
///   `not-enrolled` 404, `invalid` 422; `busy`, `stale`, `store`, `keeper` and `halted` are 503 with `Retry-After`, after
///   the service has tried again itself; what is left is 500, and somebody has to look.
///
/// # A table that is there
///
/// `examples/migrate_table.rs` seals the plaintext columns of a PostgreSQL table while the shop goes on: in batches, as of
/// each row's own date; opens what lies in the table and compares it; only then blanks the plaintext. How far it is stands
/// in the table, so it can be killed at any moment and run again. A row that does not parse, or was forgotten, stays as it is
/// and is named by its id and a code. **Afterwards the old values are still in** dead rows and their indexes until
/// `VACUUM FULL` or `pg_repack`, in `pg_statistic` until `ANALYZE`, in the write-ahead log and its archive, on replicas, in
/// logged statements, and in every dump and snapshot from before: no key closes these, let them run out.
pub mod shop_service {}

/// # What has leaked before, and what stands against it here
///
/// | what happened | what stands against it |
/// | --- | --- |
/// | Passwords and personal data in plain text in logs (Twitter, 2018; Facebook, 2019) | plaintext has no `Display` or `Serialize`, its `Debug` is masked, errors hold no input: [`value`](crate::value), [`Error`](crate::Error) |
/// | One service role could read every customer's bucket (Capital One, 2019: 106 million) | a [`Grant`](crate::Grant) holds one purpose's keys of one subject; each is in the log first |
/// | Data of former customers kept for years without need (Optus, 2022: 9.8 million) | a period on every field, or it does not compile; a day key ends all of a day at once: [`record!`](macro@crate::record) |
/// | Passport numbers, some encrypted and some not, in one table (Starwood, 2018) | a sensitive field has no unencrypted form to store: [`Sealed`](crate::Sealed) |
/// | Deleted accounts came back with a restored backup | the witness remembers, `open` refuses an older store, its root is destroyed: [`Options::recover`](crate::Options::recover) |
/// | A row of one customer copied over another's | what a cell is bound to is stated by the caller, never read from it: [`Sealed::open`](crate::Sealed::open) |
///
/// Sources: Twitter's notice of 3 May 2018; Facebook's of 21 March 2019; United States v. Thompson and Capital One's notice
/// of 29 July 2019; the Australian Information Commissioner's filings on Optus; the UK ICO's penalty notice to Marriott,
/// 30 October 2020.
pub mod leaks {}

/// # Speed
///
/// What a call costs beside its limit is in docs/performance of the repository. What a shop can do about it:
///
/// **Hold handles.** A [`Sealer`](crate::Sealer) and a [`Grant`](crate::Grant) keep their keys and ciphers ready; taking one
/// writes the log, which waits for the disk. Many subjects go through [`sealers`](crate::Vault::sealers),
/// [`unlock_many`](crate::Vault::unlock_many), [`put_many`](crate::Vault::put_many) and
/// [`enroll_many`](crate::Vault::enroll_many), a thousand to a commit; many records of one subject through
/// [`seal_many`](crate::Sealer::seal_many), on all cores. [`seal_into`](crate::Sealer::seal_into) takes no memory where the
/// buffer has room. Tasks that unlock or enroll at the same time share the disk's sync.
///
/// **Who was unlocked lately is remembered**: [`Options::remember`](crate::Options::remember) says how many, how long, and what
/// that means for the keys in memory.
///
/// **Build settings.** Measured on one machine with AVX-512 (rustc 1.95, default features otherwise; a cell of 200 bytes with two
/// lockboxes, an order of 12 fields in 3 cells with 7 lockboxes), in microseconds:
///
/// | build | seal the cell | open it | seal the order | open all of it |
/// | --- | ---: | ---: | ---: | ---: |
/// | as `cargo build --release` does | 1.77 | 0.95 | 5.5 | 3.3 |
/// | `lto = "fat"`, `codegen-units = 1` | 1.25 | 0.63 | 4.2 | 2.6 |
/// | feature `ring` | 1.30 | 0.62 | 4.0 | 2.2 |
/// | `RUSTFLAGS="-C target-cpu=native"` | 1.21 | 0.59 | 4.0 | 2.3 |
///
/// By default much of a short message's time goes to the border of the cipher crate's run-time detection of the processor, where
/// nothing is inlined and AES round keys are spread over wide registers for one or two blocks. Fat link-time optimisation
/// removes the border. The feature `ring` has assembly behind it, needs a C compiler for the build, and wipes less
/// (SECURITY.md says what). With XChaCha20-Poly1305 it is 3 times as fast as the default, which has no fast Poly1305 for short
/// messages; link-time optimisation changes nothing there. For the building machine's own processor (`target-cpu=native`) it is
/// 2.5 times as fast; such a binary runs on no older one.
///
/// ```toml
/// [profile.release]
/// lto = "fat"
/// codegen-units = 1
/// ```
pub mod speed {}

/// # Testing your code
///
/// With the feature `testing` as a dev-dependency:
///
/// ```
/// use customer_vault::value::FreeText;
/// use customer_vault::{Options, SubjectId, purposes, record, testing};
///
/// purposes! { pub Support: Contract = 1 "support"; }
/// record! {
///     pub struct Call[u64] / SealedCall / CallView in call = "call" {
///         pub notes: FreeText = 1 "notes", basic, for [Support: 1 year];
///     }
/// }
///
/// fn first_line(view: &CallView<Support>) -> Option<&str> {
///     view.notes().ok()?.expose().lines().next()
/// }
///
/// // Code that takes a view needs no vault:
/// let call = Call { notes: FreeText::parse("rang twice\nno answer")? };
/// assert_eq!(first_line(&testing::view::<Support, _>(&call)?), Some("rang twice"));
///
/// # pollster::block_on(async {
/// // Code that takes a vault gets one in memory, with a clock by hand:
/// let clock = testing::ManualClock::at(customer_vault::Day::from_ymd(2030, 1, 1)?);
/// let vault = testing::ephemeral(Options::new().record::<Call>().clock(clock.clone())).await?;
/// let (id, me, why) = (SubjectId::new("c-1")?, testing::tester(), testing::test_ground());
/// vault.enroll(&id, [], &me, &why).await?;
/// let sealed = vault.sealer::<Call>(&id, &me, &why).await?.seal(call, &1)?;
/// let grant = testing::grant::<Support>(&vault, &id).await?;
/// assert_eq!(first_line(&sealed.open(&grant, &1)?), Some("rang twice"));
/// # Ok::<(), customer_vault::Error>(()) }).unwrap();
/// # Ok::<(), customer_vault::Error>(())
/// ```
///
/// A store or keeper of your own is tested by `testing::store_contract` and by the faults in `testing`.
pub mod testing_your_code {}
