#[path = "shop/shop.rs"]
mod shop;

use shop::{Order, OrderView, Shipping};

fn needs<T: serde::Serialize>(_: T) {}

fn leak(order: Order, view: OrderView<Shipping>) {
    needs(order);
    needs(view);
}

fn main() {}
