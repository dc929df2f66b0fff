//! Checkpoints: one signed text over the heads of all lanes.
//!
//! The tree's leaves are the lanes' heads, in ascending order of the lanes' ids. Heads move, so each checkpoint is a tree
//! of its own and no proof leads from one to the next, as it would in a log of one lane; what leads on is the heads
//! themselves, each of which must lie on the lane that the next one covers. They are kept beside the checkpoint.

use super::Lane;
use crate::clock::rfc3339;
use crate::error::{Error, Malformed, Result, Unsupported};
use crate::keeper::VaultId;
use crate::note::{Checkpoint, merkle_root};
use crate::wire::{Put as _, Reader};

const LEAF: &[u8] = b"customer-vault/v1/log/head";
const VERSION: u8 = 1;
/// Of one head: lane id, number, hash.
const HEAD_LEN: usize = 16 + 8 + 32;

/// What a vault's log calls itself in checkpoints, and its key in signatures.
pub(crate) fn origin(vault: &VaultId) -> String {
    format!("customer-vault/{vault}")
}

/// The heads that one checkpoint covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heads(Vec<Lane>);

impl Heads {
    /// # Errors
    ///
    /// [`Malformed::Order`] where a lane stands there twice.
    pub(crate) fn new(mut lanes: Vec<Lane>) -> Result<Self> {
        lanes.sort_unstable_by_key(|lane| lane.id);
        if lanes.is_sorted_by(|a, b| a.id < b.id) { Ok(Heads(lanes)) } else { Err(Malformed::Order.into()) }
    }

    pub(crate) fn lanes(&self) -> &[Lane] {
        &self.0
    }

    pub(crate) fn of(&self, lane: &[u8; 16]) -> Option<&Lane> {
        self.0.binary_search_by_key(lane, |head| head.id).ok().and_then(|at| self.0.get(at))
    }

    /// Each leaf is "customer-vault/v1/log/head" ‖ lane id ‖ number as u64 ‖ hash.
    pub(crate) fn root(&self) -> [u8; 32] {
        let leaf = |lane: &Lane| {
            let mut leaf = LEAF.to_vec();
            lane.put(&mut leaf);
            leaf
        };
        merkle_root(&self.0.iter().map(leaf).collect::<Vec<_>>())
    }

    /// The checkpoint's text, to be signed: its size is the number of lanes, its one further line the time.
    pub(crate) fn text(&self, vault: &VaultId, time_ms: i64) -> Result<String> {
        let time = format!("time {}", rfc3339(time_ms));
        Ok(Checkpoint::new(&origin(vault), self.size()?, self.root(), &[&time])?.to_string())
    }

    /// Whether the verified text of a note is a checkpoint of this vault over these heads.
    ///
    /// # Errors
    ///
    /// [`Error::DoesNotOpen`] where it is another's, or over others; [`Malformed`] where it is none.
    pub(crate) fn check(&self, vault: &VaultId, text: &str) -> Result<Checkpoint> {
        let checkpoint = Checkpoint::parse(text)?;
        let ours = checkpoint.origin() == origin(vault)
            && checkpoint.size() == self.size()?
            && *checkpoint.root() == self.root();
        if ours { Ok(checkpoint) } else { Err(Error::DoesNotOpen) }
    }

    /// version ‖ (lane id ‖ number ‖ hash)*
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len().saturating_mul(HEAD_LEN).saturating_add(1));
        out.put_u8(VERSION);
        self.0.iter().for_each(|lane| lane.put(&mut out));
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Unsupported::Version.into());
        }
        let mut lanes: Vec<Lane> = Vec::with_capacity(reader.rest().len() / HEAD_LEN);
        while !reader.is_empty() {
            let lane = Lane::take(&mut reader)?;
            if lanes.last().is_some_and(|before| before.id >= lane.id) {
                return Err(Malformed::Order.into());
            }
            lanes.push(lane);
        }
        Ok(Heads(lanes))
    }

    fn size(&self) -> Result<u64> {
        u64::try_from(self.0.len()).map_err(|_| Malformed::Length.into())
    }
}
