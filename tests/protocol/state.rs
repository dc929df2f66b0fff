//! What the model is made of: the store's rows, the keeper, the witness, two processes, and an operator.
//!
//! Everything is small and of fixed size, so that states are cheap to compare. Versions of rows are compared for equality
//! alone, so they are numbered afresh after every step: two states that differ in nothing else are one.

/// Enrolled from the beginning; may be forgotten.
pub const ALICE: usize = 0;
/// Enrolled on the way; must not be lost.
pub const BOB: usize = 1;
pub const PROCESSES: usize = 2;
/// Ids of roots go from 1 to this; no more candidates are made then.
pub const ROOTS: usize = 6;
pub const EPOCHS: usize = 8;
/// Batches of removals; a place is never used twice.
pub const BATCHES: usize = 2;

/// An event of the journal. Equal lines have equal bytes, and so equal hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Root { epoch: u8, id: u8 },
    Forgot { state: u8 },
    Undone { state: u8 },
}

impl Event {
    fn encode(self) -> u8 {
        match self {
            Event::Root { epoch, id } => epoch << 3 | id,
            Event::Forgot { state } => 0x40 | state,
            Event::Undone { state } => 0x80 | state,
        }
    }

    fn decode(byte: u8) -> Self {
        match byte >> 6 {
            0 => Event::Root { epoch: byte >> 3, id: byte & 7 },
            1 => Event::Forgot { state: byte & 0x3F },
            _ => Event::Undone { state: byte & 0x3F },
        }
    }
}

/// The journal, as one of those has it that keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lines {
    count: u8,
    bytes: [u8; 10],
}

impl Lines {
    pub fn count(&self) -> u8 {
        self.count
    }

    pub fn push(&mut self, event: Event) {
        self.bytes[usize::from(self.count)] = event.encode();
        self.count += 1;
    }

    pub fn events(&self) -> impl Iterator<Item = Event> + '_ {
        self.bytes[..usize::from(self.count)].iter().map(|byte| Event::decode(*byte))
    }

    /// Whether `self` begins as `other` does and is no shorter: the chain of hashes says so.
    pub fn extends(&self, other: &Lines) -> bool {
        self.count >= other.count
            && self.bytes[..usize::from(other.count)] == other.bytes[..usize::from(other.count)]
    }

    /// The highest epoch that a root was named for.
    pub fn epoch(&self) -> u8 {
        self.roots().map(|(epoch, _)| epoch).max().unwrap_or(0)
    }

    pub fn roots(&self) -> impl Iterator<Item = (u8, u8)> + '_ {
        self.events().filter_map(|event| match event {
            Event::Root { epoch, id } => Some((epoch, id)),
            _ => None,
        })
    }

    pub fn epoch_of(&self, root: u8) -> Option<u8> {
        self.roots().find(|(_, id)| *id == root).map(|(epoch, _)| epoch)
    }

    /// Alice's state number, which every forget and undo raises. Each raise is a new era.
    pub fn state(&self) -> u8 {
        let states = self.events().map(|event| match event {
            Event::Forgot { state } | Event::Undone { state } => state,
            Event::Root { .. } => 0,
        });
        states.max().unwrap_or(0)
    }

    pub fn forgotten(&self) -> bool {
        self.events().fold(false, |forgotten, event| match event {
            Event::Forgot { .. } => true,
            Event::Undone { .. } => false,
            Event::Root { .. } => forgotten,
        })
    }
}

/// The rows whose versions are preconditions.
#[derive(Clone, Copy, Debug)]
pub enum Row {
    Epoch,
    Bucket,
    Entry(usize),
    Fence,
    Batch(usize),
    Pending,
}

impl Row {
    fn place(self) -> usize {
        match self {
            Row::Epoch => 0,
            Row::Bucket => 1,
            Row::Entry(who) => 2 + who,
            Row::Fence => 4,
            Row::Batch(slot) => 5 + slot,
            Row::Pending => 7,
        }
    }
}

/// The version of each row; 0 where it is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Versions([u8; 8]);

impl Versions {
    pub fn of(&self, row: Row) -> u8 {
        self.0[row.place()]
    }

    pub fn set(&mut self, row: Row, version: u8) {
        self.0[row.place()] = version;
    }
}

/// A subject's entry, wrapped under a generation of the bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    pub there: bool,
    pub under: u8,
    pub key: bool,
    pub state: u8,
    pub forgotten: bool,
    pub shredded: bool,
    /// Somebody has a reference to the certificate to come.
    pub referenced: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    #[default]
    None,
    Removing {
        made: u8,
    },
    Rotating {
        made: u8,
    },
    Left {
        made: u8,
        epoch: u8,
    },
}

/// A root that a commit has left, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Retired {
    pub id: u8,
    pub at: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Store {
    pub versions: Versions,
    pub epoch: u8,
    pub root: u8,
    /// The bucket's own generation, and the epoch that it is wrapped under.
    pub generation: u8,
    pub under: u8,
    pub entries: [Entry; 2],
    pub lines: Lines,
    pub batches: [Phase; BATCHES],
    /// By epoch.
    pub retired: [Retired; EPOCHS],
    /// The certificate that waits: the batch and how many of its removals came before, plus one.
    pub pending: Option<(u8, u8)>,
    pub settled: u8,
    /// The epoch that the issued certificate says was left; 0 for none.
    pub certificate: u8,
}

impl Store {
    /// Whether a row is as it was read; a row that was absent must be absent still.
    pub fn unchanged(&self, read: &Versions, row: Row) -> bool {
        self.versions.of(row) == read.of(row)
    }
}

/// What the keeper holds, by the root's id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Held {
    #[default]
    No,
    /// Made to follow an epoch.
    Candidate(u8),
    /// Of an epoch.
    Activated(u8),
}

pub type Roots = [Held; ROOTS + 1];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Keeper {
    pub roots: Roots,
    pub active: u8,
    /// How many candidates were ever made.
    pub made: u8,
}

impl Keeper {
    pub fn holds(&self, id: u8) -> bool {
        self.roots[usize::from(id)] != Held::No
    }

    pub fn active_epoch(&self) -> u8 {
        match self.roots[usize::from(self.active)] {
            Held::Activated(epoch) => epoch,
            _ => 0,
        }
    }
}

/// What a process is doing, or that it does nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Job {
    #[default]
    Idle,
    Open,
    Recover,
    Enroll,
    Forget,
    Undo,
    Unlock,
    Shred,
    Settle,
}

/// A grant for Alice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    pub state: u8,
    /// Its lease counts from before a forget that was committed since.
    pub old: bool,
}

/// A process and its memory, all of which a crash takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    /// Whether the vault is open in it.
    pub open: bool,
    /// It was told that store, keeper and witness are not of one moment.
    pub refused: bool,
    pub job: Job,
    pub step: u8,
    /// The journal in memory, and how much of it the witness is known to have.
    pub known: Lines,
    pub witnessed: u8,
    pub grant: Option<Grant>,
    pub read: Versions,
    /// What the keeper said that it holds.
    pub held: Roots,
    /// What the retired rows said.
    pub retired: [Retired; EPOCHS],
    pub epoch: u8,
    pub candidate: u8,
    /// The batch of this process, and the removals that it made.
    pub batch: u8,
    pub made: u8,
    /// Whether what it is doing was read before a forget that was committed since.
    pub old: bool,
}

/// How often each thing may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Budget {
    pub open: u8,
    pub recover: u8,
    pub enroll: u8,
    pub forget: u8,
    pub undo: u8,
    pub unlock: u8,
    pub shred: u8,
    pub settle: u8,
    pub backup: u8,
    pub restore: u8,
    pub crash: u8,
    /// The same, after a restore.
    pub crash_restored: u8,
    /// Calls of store, keeper or witness that fail, before or after they took effect.
    pub lost: u8,
    /// Restore windows that pass.
    pub tick: u8,
}

impl Budget {
    pub const NONE: Budget = Budget {
        open: 0,
        recover: 0,
        enroll: 0,
        forget: 0,
        undo: 0,
        unlock: 0,
        shred: 0,
        settle: 0,
        backup: 0,
        restore: 0,
        crash: 0,
        crash_restored: 0,
        lost: 0,
        tick: 0,
    };
}

/// Never left.
pub const NEVER: u8 = u8::MAX;

/// What nobody in the system knows, to say whether it was right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Truth {
    /// A forget of Alice has returned, and was not undone.
    pub promised: bool,
    /// Nobody has forgotten Alice, or an undo has returned.
    pub alice_lives: bool,
    pub bob_lives: bool,
    /// When a commit has left each root.
    pub left_at: [u8; ROOTS + 1],
    /// The highest epoch that was ever activated.
    pub activated: u8,
    /// A restore has put back an older store.
    pub restored: bool,
    /// It was one whose root is destroyed.
    pub dead: bool,
    /// A store of before a restore that somebody may have kept: its root, 0 for none, where Alice's key is in it.
    pub thrown_away: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct World {
    pub store: Store,
    pub keeper: Keeper,
    pub witness: Lines,
    pub processes: [Process; PROCESSES],
    /// A backup of the store.
    pub copy: Option<Store>,
    /// The root that a standby lies under, which may be behind.
    pub standby: u8,
    pub time: u8,
    pub left: Budget,
    pub truth: Truth,
}

impl World {
    /// A vault with Alice in it, open in both processes.
    pub fn new(left: Budget) -> Self {
        let mut world = World { left, standby: 1, ..Self::default() };
        let store = &mut world.store;
        (store.epoch, store.root, store.generation, store.under) = (1, 1, 1, 1);
        store.entries[ALICE] = Entry { there: true, under: 1, key: true, ..Entry::default() };
        store.lines.push(Event::Root { epoch: 1, id: 1 });
        for (version, row) in (1..).zip([Row::Epoch, Row::Bucket, Row::Entry(ALICE), Row::Fence]) {
            store.versions.set(row, version);
        }
        world.witness = store.lines;
        world.keeper.roots[1] = Held::Activated(1);
        (world.keeper.active, world.keeper.made) = (1, 1);
        world.truth =
            Truth { alice_lives: true, activated: 1, left_at: [NEVER; ROOTS + 1], ..Truth::default() };
        for process in &mut world.processes {
            (process.open, process.known, process.witnessed) = (true, store.lines, store.lines.count());
        }
        world
    }

    /// A version that no row has had.
    pub fn fresh_version(&self) -> u8 {
        self.versions().flat_map(|versions| versions.0).max().unwrap_or(0) + 1
    }

    fn versions(&self) -> impl Iterator<Item = &Versions> {
        let copy = self.copy.iter().map(|copy| &copy.versions);
        std::iter::once(&self.store.versions).chain(copy).chain(self.processes.iter().map(|one| &one.read))
    }

    /// Which process is which makes no difference, and of versions only which are equal: both are brought into one order.
    pub fn tidy(&mut self) {
        self.processes.sort_unstable();
        let mut names = [0_u8; 128];
        let mut next = 1;
        let copy = self.copy.iter_mut().map(|copy| &mut copy.versions);
        let reads = self.processes.iter_mut().map(|one| &mut one.read);
        for versions in std::iter::once(&mut self.store.versions).chain(copy).chain(reads) {
            for version in versions.0.iter_mut().filter(|version| **version != 0) {
                let name = &mut names[usize::from(*version)];
                if *name == 0 {
                    (*name, next) = (next, next + 1);
                }
                *version = *name;
            }
        }
    }
}
