#[path = "shop/shop.rs"]
mod shop;

use customer_vault::record;
use shop::{Phone, Shipping};

record! {
    pub struct Parcel / SealedParcel / ParcelView in parcel = "parcel" {
        pub phone: Phone = 1 "phone", private, for [Shipping: 90 days];
    }
}

fn main() {}
