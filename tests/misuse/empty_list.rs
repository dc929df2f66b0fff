#[path = "shop/shop.rs"]
mod shop;

use customer_vault::record;
use shop::Phone;

record! {
    pub struct Parcel / SealedParcel / ParcelView in parcel = "parcel" {
        pub phone: Phone = 1 "phone", basic, for [];
    }
}

fn main() {}
