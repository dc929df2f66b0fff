#[path = "shop/shop.rs"]
mod shop;

use customer_vault::Grant;
use shop::Shipping;

fn main() {
    let _: Grant<Shipping> = Grant { purpose: std::marker::PhantomData };
}
