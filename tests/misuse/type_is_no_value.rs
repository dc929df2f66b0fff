#[path = "shop/shop.rs"]
mod shop;

use customer_vault::record;
use shop::Shipping;

pub struct Photo;

record! {
    pub struct Parcel / SealedParcel / ParcelView in parcel = "parcel" {
        pub photo: Photo = 1 "photo", basic, for [Shipping: 90 days];
    }
}

fn main() {}
