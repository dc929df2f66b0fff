#[path = "shop/shop.rs"]
mod shop;

use customer_vault::{Grant, Sealed};
use shop::{Invoicing, OrderNo, Phone, order};

struct Row {
    address: Sealed<order::address>,
    billing: Sealed<order::billing>,
}

fn swap(row: Row) -> Row {
    Row { address: row.billing, billing: row.address }
}

fn read(row: &Row, grant: &Grant<Invoicing>, no: &OrderNo) {
    let _: Result<Phone, _> = row.address.open(grant, no);
}

fn main() {}
