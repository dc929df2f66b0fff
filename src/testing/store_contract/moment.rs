//! What [`Store::moment`] promises of a store that has it.

use super::{batch, done, fail, put};
use crate::store::{Key, Moment, Range, Store};

pub(super) async fn pages_are_of_one_moment<S: Store>(store: &S) {
    let names: Vec<[u8; 2]> = (0..20).map(|n| [b'm', n]).collect();
    let rows: Vec<(&[u8], &[u8])> = names.iter().map(|name| (name.as_slice(), b"old".as_slice())).collect();
    put(store, &rows).await;
    let mut moment = match store.moment().await {
        Ok(Some(moment)) => moment,
        // It makes no such promise.
        Ok(None) => return,
        Err(why) => fail("all rows as of one moment", why),
    };
    let mut seen = Vec::new();
    let mut range = Range::prefix(b"m");
    let mut turn = 0_u8;
    loop {
        let page = page(&mut *moment, range.clone()).await;
        seen.extend(page.0);
        // Before and behind what was read already: changed, deleted and new rows.
        let mut change = batch();
        change.put(&[b'm', 0], b"new".to_vec()).put(&[b'm', 19], b"new".to_vec());
        change.delete(&[b'm', 18]).put(&[b'm', 1, turn], b"new".to_vec()).put(&[b'm', 19, turn], Vec::new());
        done(store, change).await;
        turn = turn.saturating_add(1);
        match page.1 {
            Some(next) => range.start = next,
            None => break,
        }
    }
    let expected: Vec<(Key, Vec<u8>)> =
        rows.iter().map(|(name, row)| (name.to_vec(), row.to_vec())).collect();
    assert!(turn > 3 && seen == expected, "pages of one moment show what was there when it was taken");
    let mut later = match store.moment().await {
        Ok(Some(later)) => later,
        other => fail("a second moment", other.map(|_| ())),
    };
    let now = page(&mut *later, Range::prefix(&[b'm', 0])).await.0;
    assert!(now == [(vec![b'm', 0], b"new".to_vec())], "a later one shows what was committed before it");
}

async fn page(moment: &mut dyn Moment, range: Range) -> (Vec<(Key, Vec<u8>)>, Option<Key>) {
    match moment.page(range, 3).await {
        Ok(page) => (page.rows.into_iter().map(|(name, row)| (name, row.value)).collect(), page.next),
        Err(why) => fail("a page of a moment", why),
    }
}
