#[path = "shop/shop.rs"]
mod shop;

use customer_vault::Purpose;
use shop::OrderView;

fn read<P: Purpose>(view: &OrderView<P>) {
    let _ = view.phone();
}

fn main() {}
