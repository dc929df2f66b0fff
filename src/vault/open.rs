//! Making a vault, opening it, and putting one right whose store was restored from an older copy.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use crate::actor::{Actor, Ground};
use crate::backup::UNFINISHED;
use crate::calendar::Calendar;
use crate::clock::{Clock, SystemClock};
use crate::crypto::aead::Suite;
use crate::crypto::{self, Prf};
use crate::error::{Error, KeeperError, Misuse, Result, RolledBack, StoreError, Unsupported};
use crate::journal::{Course, Event, FENCE, Journal};
use crate::keeper::{Keeper, RootKey, Roots, VaultId};
#[cfg(test)]
use crate::key::Lookup;
use crate::key::{Index, Journal as JournalStage, Node as NodeStage, Secret, Stage};
use crate::log::{Action, Count};
use crate::note::VerifierKey;
use crate::purpose::{Purpose, PurposeInfo};
use crate::record::Record;
use crate::remembered::{self, Remembered};
use crate::ring::Ring;
use crate::row::{Plain, wrap};
use crate::schema::{Registry, Schema};
use crate::sealer::MAX_SEALS;
use crate::store::{Batch, Committed, Expect, Rows, Store};
use crate::tree::node::under_root;
use crate::tree::{ATTEMPTS, Epoch, Node, Tree};
use crate::vault::{Inner, Settings, Vault, lane};
use crate::wire::{Put as _, Reader};
use crate::witness::{Memory, Remembers, Witness};

/// The name of the row that says what lies here.
pub(crate) const CONFIG: &[u8] = b"c";
const FORMAT: &[u8] = b"customer-vault/v1";

/// What a process serves: its records and purposes. Then [`create`](Self::create) or [`open`](Self::open).
#[derive(Debug)]
pub struct Options {
    schemas: Vec<Schema>,
    purposes: Vec<PurposeInfo>,
    settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    max_seals: u64,
    remembered: (usize, Duration),
}

impl Default for Options {
    fn default() -> Self {
        Options {
            schemas: Vec::new(),
            purposes: Vec::new(),
            settings: Settings::default(),
            clock: Arc::new(SystemClock),
            max_seals: MAX_SEALS,
            remembered: (remembered::ENTRIES, remembered::AGE),
        }
    }
}

impl Options {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves a record, and the purposes that its fields name.
    #[must_use]
    pub fn record<R: Record>(mut self) -> Self {
        self.schemas.push(Schema::of::<R>());
        self
    }

    /// Serves a purpose that no record names.
    #[must_use]
    pub fn purpose<P: Purpose>(mut self) -> Self {
        self.purposes.push(PurposeInfo::of::<P>());
        self
    }

    /// For [`create`](Self::create): what is a part of the vault.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Another clock than the machine's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// How many subjects' keys this process remembers between unlocks, each with one purpose, and how long at most:
    /// unlocking one who is remembered costs no read of the store, only the commit of the log, which proves that nothing was
    /// taken away meanwhile. Default: 10,000, which take about 3 MB, for 60 seconds. 0 remembers nobody.
    ///
    /// # Security
    ///
    /// So long a purpose key may lie in this process's memory after its last grant was dropped. It is wiped when it is
    /// crowded out, found too old, or named by a forget, a withdrawal, a hold, a freeze or a new root that this process has
    /// learnt of. What is too old is looked for when others are remembered: a process that does nothing more keeps it.
    #[must_use]
    pub fn remember(mut self, subjects: usize, at_most: Duration) -> Self {
        self.remembered = (subjects, at_most);
        self
    }

    /// Fewer seals a sealer than 2^20, for tests of the bound.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn max_seals(mut self, seals: u64) -> Self {
        self.max_seals = seals.min(MAX_SEALS);
        self
    }

    /// Makes a vault in an empty store. The witness must lie elsewhere than the store: a file keeper is both keeper and
    /// witness. A creation that was interrupted goes on where it stopped.
    ///
    /// # Errors
    ///
    /// [`StoreError::Exists`] where there is a vault in the store; what store, keeper or witness say.
    pub async fn create(
        self,
        store: impl Store,
        keeper: impl Keeper,
        witness: impl Witness,
    ) -> Result<Vault> {
        let (rows, roots, memory) = (Rows::new(store), Roots::new(keeper), Memory::new(witness));
        let config = claim(&rows, &self.settings).await?;
        roots.bind(config.id).await?;
        memory.bind(config.id).await?;
        self.found(&config, &rows, &roots, &memory).await?;
        let opening = Opening::begin(config, rows, roots, memory).await?;
        opening.journal.open().await?;
        self.start(opening).await
    }

    /// Opens a vault.
    ///
    /// # Errors
    ///
    /// [`StoreError::Empty`] where there is none; [`RolledBack`] where store, keeper and witness are not of one moment:
    /// for an older store see [`recover`](Self::recover); [`StoreError::Unfinished`] where a restore or a recover was
    /// interrupted; [`Error::Contradiction`] where the declarations contradict what
    /// is stored; what store, keeper or witness say.
    pub async fn open(self, store: impl Store, keeper: impl Keeper, witness: impl Witness) -> Result<Vault> {
        let opening = Opening::of(Rows::new(store), Roots::new(keeper), Memory::new(witness)).await?;
        opening.journal.open().await?;
        if opening.journal.with(|state| state.course.recovering) {
            return Err(StoreError::Unfinished.into());
        }
        self.start(opening).await
    }

    /// Opens a vault whose store was restored from an older copy: whatever the witness remembers and the store has lost
    /// is done again, before anything opens, and shredded. Subjects and keys that were made after the copy are lost with
    /// it, and so are certificates of forgets that were not issued yet. A copy from before the last destroyed root cannot
    /// be recovered: that is what destroying it was for.
    ///
    /// Interrupted, it is begun again. Until it has come to its end, [`open`](Self::open) says [`RolledBack::Store`], or,
    /// once the store has the lost lines again, [`StoreError::Unfinished`], by the journal: whoever writes the store cannot
    /// have it pass for one that is done. Where the journal knows of changes of keys ([`Vault::change_key`]) that the copy has not,
    /// the keys of tokens, indexes and signatures are all made anew, and no former one is believed. Tickets that were given
    /// after the copy are not known any more: for an hour, `forget` may report none. Where the lookup key was changed after the
    /// copy was made, or is being changed in it, the keys of the whole tree are made anew, which takes as long as writing all
    /// entries.
    ///
    /// # Errors
    ///
    /// [`RolledBack::Gone`] where the copy's root is destroyed; [`KeeperError::Missing`] where there is
    /// [no witness](crate::witness::NoWitness), and so nothing to do again; as [`open`](Self::open) otherwise.
    pub async fn recover(
        self,
        store: impl Store,
        keeper: impl Keeper,
        witness: impl Witness,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Vault> {
        let witness = Memory::new(witness);
        if witness.remembers() == Remembers::Nothing {
            return Err(KeeperError::Missing.into());
        }
        let (rows, roots) = (Rows::new(store), Roots::new(keeper));
        let config = Config::read(&rows).await?;
        roots.bind(config.id).await?;
        witness.bind(config.id).await?;
        let opening = Opening::begin(config, rows, roots, witness).await?;
        self.replay(opening, Action::Recover, actor, ground).await
    }

    /// Does again what the store has lost, before anything opens.
    pub(crate) async fn replay(
        self,
        opening: Opening,
        action: Action,
        actor: &Actor,
        ground: &Ground,
    ) -> Result<Vault> {
        // Until all of it is done, nobody opens the vault otherwise: it is behind the journal, and then the journal says so.
        let believes = |course: &Course| course.believes(opening.sum, opening.secrets.ring.is_first());
        let replayed =
            crate::recover::replay(&opening.tree, &opening.journal, self.clock.wall(), believes).await?;
        opening.journal.open().await?;
        let vault = self.start(opening).await?;
        vault.0.recovers.store(true, Ordering::Release);
        vault.0.keys_anew(&vault.0.entry_by(Action::ChangeKey, actor, ground)?).await?;
        let entry = vault.0.entry_by(action, actor, ground)?.counting(Count::Records, replayed);
        vault.0.log(entry).await?;
        vault.0.rotate_where_lost().await?;
        // Where the clock has jumped, an operator has to confirm the time first; all is fenced meanwhile.
        let done = match vault.shred(actor, ground).await {
            Ok(_) => vault.expire(actor, ground).await.map(drop),
            Err(why) => Err(why),
        };
        done.or_else(|why| if matches!(why, Error::Halted(_)) { Ok(()) } else { Err(why) })?;
        vault.0.journal.record(&[Event::Recovered]).await?;
        vault.0.recovers.store(false, Ordering::Release);
        Ok(vault)
    }

    /// Everything that lies under the first root, in one commit.
    async fn found(&self, config: &Config, rows: &Rows, roots: &Roots, memory: &Memory) -> Result<()> {
        let candidate = roots.candidate(0).await?;
        let epoch = Epoch { epoch: 1, id: candidate.id, wrapped: candidate.wrapped };
        let mut registry = Registry::default();
        registry.merge(&self.schemas, &self.purposes)?;

        let mut batch = Batch::new()?;
        batch.expect(&Node::Root.name(), Expect::Absent);
        batch.put(&Node::Root.name(), epoch.encode());
        let under = Under::new(&candidate.key, config)?;
        under.fresh::<Index>(under_root::INDEX, &mut batch)?;
        let ring = Ring::fresh(self.settings.suite, self.clock.wall())?;
        under.put(under_root::LOOKUP, &ring.encode_lookup(), &mut batch)?;
        under.put(under_root::RING, &ring.encode(), &mut batch)?;
        let key = under.fresh::<JournalStage>(under_root::JOURNAL, &mut batch)?;
        under.put(under_root::SETTINGS, &self.settings.encode(), &mut batch)?;
        under.put(under_root::REGISTRY, &registry.encode(), &mut batch)?;
        let mut events = vec![Event::Created, Event::Root { epoch: 1, id: epoch.id }];
        events.extend(crate::clock::Day::of(self.clock.wall()).before().map(|day| Event::Mark { day }));
        let journal = Journal::new(config.id, Prf::new(key.expose()), rows.clone(), memory.clone());
        journal.stage(&mut batch, None, &events)?;
        match rows.commit(batch).await? {
            Committed::Yes => Ok(()),
            // Somebody else made it, or a commit of unknown outcome was not made.
            Committed::Conflict if rows.get(&Node::Root.name()).await?.is_some() => {
                Err(StoreError::Exists.into())
            }
            Committed::Conflict => Err(Error::Busy),
        }
    }

    async fn start(self, opening: Opening) -> Result<Vault> {
        let Opening { config, rows, roots, tree, journal, secrets, .. } = opening;
        tree.settle_keeper(&journal).await?;
        let registry = self.register(&tree, &journal).await?;
        let Secrets { settings, index, ring } = secrets;
        let (entries, age) = self.remembered;
        let remembered = Arc::new(Remembered::new(entries, age));
        journal.wipes(&remembered);
        if settings.suite != config.suite || settings.height != config.height {
            return Err(RolledBack::Mixed.into());
        }
        let inner = Inner {
            id: config.id,
            remembered,
            lane: lane::Writer::new(config.id, rows.clone())?,
            lanes: super::lanes::Lanes::default(),
            staging: Mutex::default(),
            registry_seen: AtomicU64::new(journal.with(|state| state.registry)),
            // Read before the journal was: read again when it is first needed.
            ring_seen: AtomicU64::new(0),
            refreshing: async_lock::Mutex::new(()),
            rows,
            roots,
            tree,
            journal,
            calendar: Calendar::default(),
            recovers: AtomicBool::new(false),
            clock: self.clock,
            settings,
            registry: RwLock::new(registry),
            moved: Mutex::default(),
            index,
            ring: RwLock::new(Arc::new(ring)),
            maintenance: async_lock::Mutex::new(()),
            lease: RwLock::default(),
            causes: Mutex::default(),
            max_seals: self.max_seals,
            served: self.schemas.iter().map(|schema| (schema.label(), schema.type_id())).collect(),
        };
        inner.tree.finish_rotations(&inner.journal, || inner.clock.wall()).await?;
        inner.keep_time().await?;
        if inner.clock_is_sane(inner.now()).is_ok() {
            inner.top_up(true).await?;
        } else {
            inner.calendar.load(&inner.tree).await?;
        }
        inner.refresh_ring().await?;
        inner.log(inner.entry(Action::OpenVault, crate::log::Outcome::Done)).await?;
        Ok(Vault(Arc::new(inner)))
    }

    /// Reads the registry, and stores what the declarations add to it, with an event that tells other processes.
    async fn register(&self, tree: &Tree, journal: &Journal) -> Result<Registry> {
        let names = [under_root::REGISTRY.to_vec(), FENCE.to_vec()];
        for _ in 0..ATTEMPTS {
            let asked = journal.known();
            let (path, rows) = tree.path(&Node::Root, &names).await?;
            let [Some(row), fence] = rows.as_slice() else { return Err(RolledBack::Mixed.into()) };
            let mut registry = Registry::decode(&tree.open_under_root(&path, under_root::REGISTRY, row)?)?;
            if !registry.merge(&self.schemas, &self.purposes)? {
                return Ok(registry);
            }
            journal.catch_up(journal.head_of(fence.as_ref())?, asked).await?;
            let mut batch = Batch::new()?;
            tree.put_under_root(&path, under_root::REGISTRY, Some(row), &registry.encode(), &mut batch)?;
            let lines = match journal.stage(&mut batch, fence.as_ref(), &[Event::Registry]) {
                Err(Error::Busy) => continue,
                lines => lines?,
            };
            if tree.rows.commit(batch).await? == Committed::Yes {
                journal.committed(&lines)?;
                journal.complete().await?;
                return Ok(registry);
            }
        }
        Err(Error::Busy)
    }
}

/// A vault between reading its first row and standing.
pub(crate) struct Opening {
    config: Config,
    rows: Rows,
    roots: Roots,
    tree: Tree,
    journal: Journal,
    secrets: Secrets,
    /// Of the rows of the keys.
    sum: [u8; 32],
}

/// What lies directly under the root and does not change.
struct Secrets {
    settings: Settings,
    index: Secret<Index>,
    ring: Ring,
}

impl Opening {
    async fn of(rows: Rows, roots: Roots, memory: Memory) -> Result<Self> {
        let config = Config::read(&rows).await?;
        roots.bind(config.id).await?;
        memory.bind(config.id).await?;
        Self::begin(config, rows, roots, memory).await
    }

    #[cfg(test)]
    pub(crate) fn lookup(&self) -> &Secret<Lookup> {
        self.secrets.ring.lookup_key()
    }

    /// The keys that verify notes of this vault.
    pub(crate) fn verifier_keys(&self) -> Result<Vec<VerifierKey>> {
        self.secrets.ring.verifiers(&crate::log::origin(&self.config.id))
    }

    /// Nothing is released by the secrets; the journal needs its key before it can tell whether the store is an older
    /// one.
    pub(crate) async fn begin(config: Config, rows: Rows, roots: Roots, memory: Memory) -> Result<Self> {
        let tree = config.tree(&rows, &roots);
        let names = [
            under_root::LOOKUP,
            under_root::RING,
            under_root::INDEX,
            under_root::SETTINGS,
            under_root::JOURNAL,
        ]
        .map(<[u8]>::to_vec);
        let (path, read) = tree.path(&Node::Root, &names).await?;
        let mut opened = Vec::new();
        for (name, row) in names.iter().zip(&read) {
            opened.push(tree.open_under_root(&path, name, row.as_ref().ok_or(RolledBack::Mixed)?)?);
        }
        let [lookup, ring, index, settings, journal] = opened.as_slice() else {
            return Err(RolledBack::Mixed.into());
        };
        let journal = Secret::<JournalStage>::from_slice(journal).ok_or(RolledBack::Mixed)?;
        let secrets = Secrets {
            settings: Settings::decode(settings)?,
            index: Secret::from_slice(index).ok_or(RolledBack::Mixed)?,
            ring: Ring::decode(ring, lookup)?,
        };
        let journal = Journal::new(config.id, Prf::new(journal.expose()), rows.clone(), memory);
        let sum = journal.sum_of_keys(ring, lookup);
        Ok(Opening { config, rows, roots, tree, journal, secrets, sum })
    }
}

/// Wraps directly under the first root.
struct Under {
    parent: crate::key::Parent,
    vault: VaultId,
}

impl Under {
    fn new(root: &RootKey, config: &Config) -> Result<Self> {
        let root = Secret::<NodeStage>::from_slice(root.expose()).ok_or(Error::DoesNotOpen)?;
        Ok(Under { parent: root.parent(config.suite), vault: config.id })
    }

    fn fresh<K: Stage>(&self, name: &[u8], batch: &mut Batch) -> Result<Secret<K>> {
        let secret = Secret::<K>::random()?;
        self.put(name, secret.expose(), batch)?;
        Ok(secret)
    }

    fn put(&self, name: &[u8], bytes: &[u8], batch: &mut Batch) -> Result<()> {
        batch.put(name, wrap(&self.parent, &self.vault, name, 1, &Plain::whole(0, bytes))?);
        Ok(())
    }
}

/// What has to be known before the first key: in clear, and checked against the settings under the root.
pub(crate) struct Config {
    pub(crate) id: VaultId,
    suite: Suite,
    height: u8,
}

impl Config {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_bytes(FORMAT);
        out.put(self.id.bytes());
        out.put_u8(self.suite.number());
        out.put_u8(self.height);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(bytes);
        if r.bytes().map_err(|_| StoreError::Foreign)? != FORMAT {
            return Err(Unsupported::Version.into());
        }
        let config = Config { id: VaultId(r.array()?), suite: Suite::from_number(r.u8()?)?, height: r.u8()? };
        r.end()?;
        if (1..=6).contains(&config.height) { Ok(config) } else { Err(Unsupported::Parameters.into()) }
    }

    async fn read(rows: &Rows) -> Result<Self> {
        match rows.read(&[CONFIG.to_vec(), UNFINISHED.to_vec()]).await?.as_slice() {
            [_, Some(_)] => Err(StoreError::Unfinished.into()),
            [Some(row), None] => Config::decode(&row.value),
            _ => Err(StoreError::Empty.into()),
        }
    }

    pub(crate) fn tree(&self, rows: &Rows, roots: &Roots) -> Tree {
        Tree::new(self.id, rows.clone(), roots.clone(), self.suite, self.height)
    }
}

/// Puts the vault's id into an empty store, first of all: keeper and witness are bound to it, and a creation that was
/// interrupted must find them bound to the same.
async fn claim(rows: &Rows, settings: &Settings) -> Result<Config> {
    let read = rows.read(&[CONFIG.to_vec(), Node::Root.name(), UNFINISHED.to_vec()]).await?;
    match read.get(..2).unwrap_or_default() {
        _ if read.last().is_some_and(Option::is_some) => return Err(StoreError::Unfinished.into()),
        [Some(_), Some(_)] => return Err(StoreError::Exists.into()),
        [Some(config), None] => {
            let config = Config::decode(&config.value)?;
            if config.suite != settings.suite || config.height != settings.height {
                return Err(Misuse::Setting.into());
            }
            return Ok(config);
        }
        [None, None] => {}
        _ => return Err(StoreError::Damaged.into()),
    }
    let config = Config { id: VaultId(crypto::random()?), suite: settings.suite, height: settings.height };
    let mut batch = Batch::new()?;
    batch.expect(CONFIG, Expect::Absent);
    batch.expect(UNFINISHED, Expect::Absent);
    batch.put(CONFIG, config.encode());
    match rows.commit(batch).await? {
        Committed::Yes => Ok(config),
        Committed::Conflict => Err(Error::Busy),
    }
}
