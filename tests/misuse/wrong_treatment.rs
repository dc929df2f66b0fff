#[path = "shop/shop.rs"]
mod shop;

use customer_vault::record;
use shop::{Phone, Shipping};

record! {
    pub struct Parcel / SealedParcel / ParcelView in parcel = "parcel" {
        pub phone: Phone = 1 "phone", basic, for [Shipping: 90 days], hidden;
    }
}

fn main() {}
