#[path = "shop/shop.rs"]
mod shop;

use shop::{OrderView, Recommendation};

fn read(view: &OrderView<Recommendation>) {
    let _ = view.phone();
}

fn main() {}
