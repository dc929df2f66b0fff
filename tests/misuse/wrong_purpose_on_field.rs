#[path = "shop/shop.rs"]
mod shop;

use customer_vault::{Grant, Sealed};
use shop::{OrderNo, Recommendation, order};

fn read(phone: &Sealed<order::phone>, grant: &Grant<Recommendation>, no: &OrderNo) {
    let _ = phone.open(grant, no);
}

fn main() {}
