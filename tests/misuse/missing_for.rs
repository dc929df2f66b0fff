#[path = "shop/shop.rs"]
mod shop;

use customer_vault::record;
use shop::{Phone, Shipping};

record! {
    pub struct Parcel / SealedParcel / ParcelView in parcel = "parcel" {
        pub phone: Phone = 1 "phone", basic;
        pub mobile: Phone = 2 "mobile", basic, for [Shipping: 90 days], alone, padded 32;
        pub fax: Phone = 3 "fax", basic, alone, for [Shipping: 90 days];
    }
}

fn main() {}
