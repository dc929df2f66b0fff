#[path = "shop/shop.rs"]
mod shop;

use customer_vault::Grant;
use shop::{SealedOrder, Shipping};

fn read(order: &SealedOrder, grant: &Grant<Shipping>) {
    let _ = order.open(grant);
}

fn main() {}
