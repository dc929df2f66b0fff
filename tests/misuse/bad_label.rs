#[path = "shop/shop.rs"]
mod shop;

use customer_vault::record;
use shop::{Phone, Shipping};

record! {
    pub struct Parcel / SealedParcel / ParcelView in parcel = "parcel" {
        pub phone: Phone = 1 "Phone", basic, for [Shipping: 90 days];
        pub mobile: Phone = 2 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", basic, for [Shipping: 90 days];
    }
}

fn main() {}
