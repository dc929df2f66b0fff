//! A batch in the making, for any number of subjects.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Node;
use crate::error::Result;
use crate::key::Parent;
use crate::store::{Batch, Expect, Key, Versioned};

/// A [`Batch`] with an index of its rows: adding to a batch looks through all that is there, which a thousand subjects
/// in one would pay for. It knows the nodes that it has made, so that subjects that share one make it once.
#[derive(Debug)]
pub(crate) struct Draft {
    batch: Batch,
    expected: HashSet<Key>,
    written: HashMap<Key, usize>,
    made: HashMap<Node, Arc<Parent>>,
}

impl Draft {
    /// # Errors
    ///
    /// [`Error::NoRandomness`](crate::Error::NoRandomness).
    pub(crate) fn new() -> Result<Self> {
        Ok(Draft {
            batch: Batch::new()?,
            expected: HashSet::new(),
            written: HashMap::new(),
            made: HashMap::new(),
        })
    }

    /// Adds a precondition. The first one for a row stands.
    pub(crate) fn expect(&mut self, key: &[u8], expect: Expect) {
        if !self.expected.contains(key) {
            self.expected.insert(key.to_vec());
            self.batch.expect.push((key.to_vec(), expect));
        }
    }

    /// Adds a write, or a deletion. The last one for a row stands.
    pub(crate) fn write(&mut self, key: &[u8], value: Option<Vec<u8>>) {
        if let Some((_, old)) = self.written.get(key).and_then(|place| self.batch.writes.get_mut(*place)) {
            *old = value;
        } else {
            self.written.insert(key.to_vec(), self.batch.writes.len());
            self.batch.writes.push((key.to_vec(), value));
        }
    }

    pub(crate) fn put(&mut self, key: &[u8], value: Vec<u8>) {
        self.write(key, Some(value));
    }

    /// Writes a row again as it is: a rotation that has read it fails its precondition.
    pub(super) fn touch(&mut self, node: &Node, row: &Versioned) {
        let name = node.name();
        self.expect(&name, Expect::Version(row.version));
        if !self.written.contains_key(&name) {
            self.put(&name, row.value.clone());
        }
    }

    /// The keys of a node that this batch makes.
    pub(super) fn made(&self, node: &Node) -> Option<Arc<Parent>> {
        self.made.get(node).cloned()
    }

    pub(super) fn make(&mut self, node: Node, parent: Arc<Parent>) {
        self.made.insert(node, parent);
    }

    pub(crate) fn done(self) -> Batch {
        self.batch
    }
}

#[cfg(test)]
mod tests {
    use super::Draft;
    use crate::store::{Batch, Expect};

    #[test]
    fn a_draft_is_the_batch_that_the_same_calls_make() {
        let (mut draft, mut batch) = (Draft::new().unwrap(), Batch::new().unwrap());
        let keys: [&[u8]; 5] = [b"a", b"b", b"a", b"", b"b"];
        for (number, key) in (0_u8..).zip(keys) {
            draft.expect(key, Expect::Version([number; 16]));
            batch.expect(key, Expect::Version([number; 16]));
            let value = (number % 3 != 0).then(|| vec![number]);
            draft.write(key, value.clone());
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            };
        }
        let draft = draft.done();
        assert_eq!((draft.expect, draft.writes), (batch.expect, batch.writes));
    }
}
