//! A witness in the key-value store (version 2) of OpenBao or HashiCorp Vault.
//!
//! Layout: below one path, an entry `vault`, which says whose the others are, and entries with the lines of the journal,
//! each named after the number of its first line in 16 hexadecimal digits. Every entry is written under check-and-set: the
//! version that was read must still be the newest.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Line, MAX_LINE, Witness};
use crate::error::{KeeperError, Result};
use crate::keeper::transit::client::{Client, Link};
use crate::keeper::transit::options::{BaoOptions, check_path};
use crate::keeper::{Serves, VaultId};

mod chunk;

use chunk::{Chunk, Entry};

/// The entry that names the vault.
const BOUND: &str = "vault";

/// So often another process may come first before an append gives up.
const ATTEMPTS: u32 = 20;

/// A path in the key-value store, version 2, of an OpenBao or HashiCorp Vault server, that remembers for processes of any
/// number of hosts. Clones are the same witness; they share what they know about where the journal ends.
///
/// **It must lie on another server than the store, and should lie on another one than the keeper**
/// ([`TransitKeeper`](crate::keeper::TransitKeeper)): one that fails, is backed up and is restored on its own. A snapshot of
/// a server brings back everything on it to one moment. Where keeper and witness are brought back together, destroyed keys
/// are there again and the lines that tell of it are not; with a store from the same day nothing is left that knows better.
///
/// Lines are packed, up to 256 of them or 64 KiB an entry. An append reads the last entry and writes it again with what is
/// new: two requests. To recall all takes a request for each entry and two more. Each version of an entry has all of its
/// lines, so that `max_versions` may be what it is; 1 saves space. Where the mount or the path deletes versions after a time
/// (`delete_version_after`) they would be lost: binding, and every read and write, fails with [`KeeperError::Unfit`].
///
/// Restored to an older state, it knows fewer lines than the store. The next open brings it up to the store without a word,
/// because a process that died before it told the witness leaves the same. What an older witness cannot do is to find a
/// store that is as old as itself. With nothing at its path any more it is [`KeeperError::Damaged`] to those who have the
/// vault open, and bound anew by the next open.
///
/// Whoever may write its path can make the vault refuse to open, or lose lines from its end; they cannot make one up: lines
/// are chained by a key of the vault. Lines are pseudonymous. A request whose outcome is lost is made again: what it wrote
/// is found, because a line that is there is compared, and another one under its number is [`KeeperError::Foreign`]. Bind it
/// before anything else: until then there is [`KeeperError::Missing`]. A line longer than 4 KiB is refused like a gap.
///
/// # What the token may do
///
/// The policy for a mount `secret` and a path `customer-vault/shop`. It takes no right to delete, and nobody should have it.
///
/// ```hcl
/// path "secret/data/customer-vault/shop/*"     { capabilities = ["create", "read", "update"] }
/// path "secret/metadata/customer-vault/shop/*" { capabilities = ["list"] }
/// ```
///
/// # Errors
///
/// As [`TransitKeeper`](crate::keeper::TransitKeeper) has them of its server.
#[derive(Clone)]
pub struct KvWitness {
    link: Link<Hint>,
    place: Arc<Place>,
    vault: Arc<OnceLock<VaultId>>,
}

impl fmt::Debug for KvWitness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KvWitness(..)")
    }
}

impl KvWitness {
    /// Over the key-value store that is mounted at `mount`, below `path`, which serves one vault and holds nothing else. It
    /// asks the server for what is there, so that a token or an address that does not fit is known at once.
    ///
    /// # Errors
    ///
    /// [`Misuse::Setting`](crate::error::Misuse::Setting) where the options, the mount or the path cannot be used; what the
    /// server says.
    pub async fn connect(options: BaoOptions, mount: &str, path: &str) -> Result<Self> {
        check_path(mount)?;
        check_path(path)?;
        let place = Place { mount: mount.to_owned(), path: path.to_owned() };
        let link = Link::start(options, Hint::default())?;
        let witness = KvWitness { link, place: Arc::new(place), vault: Arc::default() };
        witness.on_server(None, |entries, _| entries.firsts().map(drop)).await?;
        Ok(witness)
    }

    async fn on_server<T: Send + 'static>(
        &self,
        vault: Option<VaultId>,
        job: impl FnOnce(&Entries<'_>, &mut Hint) -> Result<T, KeeperError> + Send + 'static,
    ) -> Result<T, KeeperError> {
        let place = Arc::clone(&self.place);
        // Before a vault is named nothing is compared with it.
        let vault = vault.unwrap_or(VaultId([0; 16]));
        self.link.run(move |client, hint| job(&Entries { client, place: &place, vault }, hint)).await
    }

    fn vault(&self) -> Result<VaultId, KeeperError> {
        self.vault.get().copied().ok_or(KeeperError::Missing)
    }
}

impl Witness for KvWitness {
    async fn bind(&self, vault: VaultId) -> Result<(), KeeperError> {
        self.on_server(Some(vault), |entries, _| entries.bind()).await?;
        if *self.vault.get_or_init(|| vault) == vault { Ok(()) } else { Err(KeeperError::Foreign) }
    }

    async fn recall(&self, from: u64) -> Result<Vec<Line>, KeeperError> {
        let vault = self.vault()?;
        self.on_server(Some(vault), move |entries, hint| entries.recall(from.max(1), hint)).await
    }

    async fn remember(&self, lines: Vec<Line>) -> Result<(), KeeperError> {
        let vault = self.vault()?;
        let lines = in_order(lines)?;
        self.on_server(Some(vault), move |entries, hint| entries.remember(&lines, hint)).await
    }

    fn serves(&self) -> Serves {
        Serves::ManyHosts
    }
}

/// Each number once.
fn in_order(lines: Vec<Line>) -> Result<BTreeMap<u64, Vec<u8>>, KeeperError> {
    let mut sorted = BTreeMap::new();
    for Line { number, bytes } in lines {
        if number == 0 || number == u64::MAX || bytes.len() > MAX_LINE {
            return Err(KeeperError::Damaged);
        }
        if sorted.get(&number).is_some_and(|there| *there != bytes) {
            return Err(KeeperError::Foreign);
        }
        sorted.insert(number, bytes);
    }
    Ok(sorted)
}

struct Place {
    mount: String,
    path: String,
}

/// The first number of what was the last entry when this handle last looked; where to look first. Nothing is taken from it
/// that is not read again.
#[derive(Debug, Default)]
struct Hint(Option<u64>);

/// The entries of one path.
struct Entries<'a> {
    client: &'a Client,
    place: &'a Place,
    vault: VaultId,
}

/// An entry as it was read: what it holds, and which version.
struct Seen<T> {
    version: u64,
    content: T,
}

/// How a write under check-and-set ended.
enum Put {
    Done,
    /// Another version is there than the one that was read, or the write was refused for what it is.
    Not,
}

#[derive(Deserialize)]
struct Listed {
    data: Names,
}

#[derive(Deserialize)]
struct Names {
    keys: Vec<String>,
}

#[derive(Deserialize)]
struct Got {
    data: GotData,
}

#[derive(Deserialize)]
struct GotData {
    data: Option<serde_json::Value>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Written {
    data: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
    deletion_time: String,
    destroyed: bool,
}

#[derive(Serialize)]
struct Writing<'a> {
    options: Cas,
    data: &'a Entry,
}

#[derive(Serialize)]
struct Cas {
    cas: u64,
}

impl Entries<'_> {
    /// `None` where there never was such an entry. One that was deleted is damage.
    fn get(&self, name: &str) -> Result<Option<Seen<Entry>>, KeeperError> {
        let Place { mount, path } = self.place;
        let answer = self.client.get(&format!("{mount}/data/{path}/{name}"))?;
        if answer.is_nothing()? {
            return Ok(None);
        }
        let GotData { data, metadata } = answer.read_any::<Got>()?.data;
        let Some(data) = data.filter(|_| !metadata.destroyed) else { return Err(KeeperError::Damaged) };
        if !metadata.deletion_time.is_empty() {
            return Err(KeeperError::Unfit);
        }
        // What is no entry of ours.
        let content = serde_json::from_value(data).map_err(|_| KeeperError::Foreign)?;
        Ok(Some(Seen { version: metadata.version, content }))
    }

    fn put(&self, name: &str, entry: &Entry, cas: u64) -> Result<Put, KeeperError> {
        let Place { mount, path } = self.place;
        let body = serde_json::to_vec(&Writing { options: Cas { cas }, data: entry });
        let body = body.map_err(|_| KeeperError::Io)?;
        let answer = self.client.post(&format!("{mount}/data/{path}/{name}"), &body)?;
        if !answer.is_good() {
            answer.is_nothing()?;
            return Ok(Put::Not);
        }
        // Version 1 of the key-value store says nothing, and checks nothing.
        let Ok(written) = answer.read::<Written>() else { return Err(KeeperError::Unfit) };
        let Metadata { version, deletion_time, destroyed } = written.data;
        if !deletion_time.is_empty() || destroyed {
            return Err(KeeperError::Unfit);
        }
        if cas.checked_add(1) == Some(version) { Ok(Put::Done) } else { Err(KeeperError::Unfit) }
    }

    /// The first numbers of all entries, ascending.
    fn firsts(&self) -> Result<Vec<u64>, KeeperError> {
        let Place { mount, path } = self.place;
        let answer = self.client.get(&format!("{mount}/metadata/{path}/?list=true"))?;
        if answer.is_nothing()? {
            return Ok(Vec::new());
        }
        let names = answer.read::<Listed>()?.data.keys;
        let mut firsts: Vec<u64> = names.iter().filter_map(|name| Chunk::first_of(name)).collect();
        firsts.sort_unstable();
        Ok(firsts)
    }

    fn bind(&self) -> Result<(), KeeperError> {
        if self.bound()? {
            return Ok(());
        }
        self.put(BOUND, &Entry::bound(self.vault), 0)?;
        // Read back: what was there first stands.
        if self.bound()? { Ok(()) } else { Err(KeeperError::Io) }
    }

    /// Whether it is bound to this vault; false where it is bound to none.
    fn bound(&self) -> Result<bool, KeeperError> {
        match self.get(BOUND)? {
            None => Ok(false),
            Some(seen) if seen.content.is_of(self.vault) => Ok(true),
            Some(_) => Err(KeeperError::Foreign),
        }
    }

    fn chunk(&self, first: u64) -> Result<Option<Seen<Chunk>>, KeeperError> {
        let Some(Seen { version, content }) = self.get(&Chunk::name(first))? else { return Ok(None) };
        Ok(Some(Seen { version, content: Chunk::of(&content, self.vault, first)? }))
    }

    /// Where the next line goes: into the last entry, or into one that is not there yet.
    fn tail(&self, hint: &mut Hint) -> Result<Seen<Chunk>, KeeperError> {
        let mut at = hint.0.take();
        if at.is_none() {
            if !self.bound()? {
                return Err(KeeperError::Damaged);
            }
            at = self.firsts()?.last().copied();
        }
        let mut at = at.unwrap_or(1);
        let mut known = at == 1;
        loop {
            match self.chunk(at)? {
                Some(seen) if seen.content.is_full() => {
                    (at, known) = (seen.content.end(), true);
                }
                Some(seen) => {
                    hint.0 = Some(at);
                    return Ok(seen);
                }
                None if known => {
                    // Whose the path is says nothing that was just read.
                    if at == 1 && !self.bound()? {
                        return Err(KeeperError::Damaged);
                    }
                    return Ok(Seen { version: 0, content: Chunk::starting_at(at) });
                }
                // The server is an older one than when it was looked at last.
                None => {
                    at = self.firsts()?.last().copied().unwrap_or(1);
                    known = at == 1;
                    if !known && self.chunk(at)?.is_none() {
                        return Err(KeeperError::Damaged);
                    }
                }
            }
        }
    }

    fn remember(&self, lines: &BTreeMap<u64, Vec<u8>>, hint: &mut Hint) -> Result<(), KeeperError> {
        for attempt in 0..ATTEMPTS {
            let tail = self.tail(hint)?;
            let end = tail.content.end();
            self.compare(lines, &tail.content)?;
            let fresh: Vec<(u64, &Vec<u8>)> =
                lines.range(end..).map(|(number, line)| (*number, line)).collect();
            if fresh.iter().zip(end..).any(|((number, _), expected)| *number != expected) {
                return Err(KeeperError::Damaged);
            }
            if fresh.is_empty() || self.append(tail, &fresh, hint)? {
                return Ok(());
            }
            // Another process came first, or the request did, before its answer was lost.
            thread::sleep(Duration::from_millis(u64::from(attempt).saturating_mul(5)));
        }
        Err(KeeperError::Unreachable)
    }

    /// False where an entry was not what it was read as.
    fn append(
        &self,
        tail: Seen<Chunk>,
        fresh: &[(u64, &Vec<u8>)],
        hint: &mut Hint,
    ) -> Result<bool, KeeperError> {
        let Seen { mut version, content: mut chunk } = tail;
        let mut left = fresh.iter().peekable();
        while left.peek().is_some() {
            while !chunk.is_full()
                && let Some((_, line)) = left.next()
            {
                chunk.lines.push((*line).clone());
            }
            match self.put(&Chunk::name(chunk.first), &chunk.entry(self.vault), version)? {
                Put::Done => hint.0 = Some(chunk.first),
                Put::Not => {
                    // Refused although nobody came first: it will be refused again.
                    let now = self.chunk(chunk.first)?.map_or(0, |seen| seen.version);
                    return if now == version { Err(KeeperError::Io) } else { Ok(false) };
                }
            }
            (version, chunk) = (0, Chunk::starting_at(chunk.end()));
        }
        Ok(true)
    }

    /// Numbers that are there already must have the same bytes.
    fn compare(&self, lines: &BTreeMap<u64, Vec<u8>>, tail: &Chunk) -> Result<(), KeeperError> {
        let mut known = lines.range(..tail.end()).peekable();
        let Some((lowest, _)) = known.peek() else { return Ok(()) };
        let mut chunks = BTreeMap::from([(tail.first, tail.clone())]);
        if **lowest < tail.first {
            let firsts = self.firsts()?;
            let from = firsts.iter().rev().find(|first| *first <= lowest).copied();
            let highest = lines.range(..tail.first).next_back().map_or(0, |(number, _)| *number);
            let mut at = from.ok_or(KeeperError::Damaged)?;
            while at <= highest {
                let chunk = self.chunk(at)?.ok_or(KeeperError::Damaged)?.content;
                let next = chunk.end();
                chunks.insert(at, chunk);
                at = next;
            }
        }
        for (number, line) in known {
            let chunk = chunks.range(..=*number).next_back().map(|(_, chunk)| chunk);
            match chunk.and_then(|chunk| chunk.line(*number)) {
                Some(there) if there == line.as_slice() => {}
                Some(_) => return Err(KeeperError::Foreign),
                None => return Err(KeeperError::Damaged),
            }
        }
        Ok(())
    }

    fn recall(&self, from: u64, hint: &mut Hint) -> Result<Vec<Line>, KeeperError> {
        // Bound to nothing any more: emptied, or another mount in its place.
        if !self.bound()? {
            return Err(KeeperError::Damaged);
        }
        let firsts = self.firsts()?;
        let Some(last) = firsts.last().copied() else { return Ok(Vec::new()) };
        let start = firsts.iter().rev().find(|first| **first <= from).copied();
        let mut at = start.ok_or(KeeperError::Damaged)?;
        let mut lines = Vec::new();
        loop {
            let Some(Seen { content: chunk, .. }) = self.chunk(at)? else {
                // One that was listed is not there.
                return if at <= last { Err(KeeperError::Damaged) } else { Ok(lines) };
            };
            hint.0 = Some(at);
            let (next, full) = (chunk.end(), chunk.is_full());
            let numbered = chunk.lines.into_iter().zip(at..);
            let wanted = numbered.filter(|(_, number)| *number >= from);
            lines.extend(wanted.map(|(bytes, number)| Line { number, bytes }));
            if at < last && (!full || next > last) {
                // What is listed behind it does not join on.
                return Err(KeeperError::Damaged);
            }
            if !full {
                return Ok(lines);
            }
            at = next;
        }
    }
}
