#[path = "shop/shop.rs"]
mod shop;

use customer_vault::record;
use shop::{Phone, Shipping};

record! {
    pub struct Parcel / SealedParcel / ParcelView in parcel = "parcel", reserved [4 "fax"] {
        pub pager: Phone = 4 "pager", basic, for [Shipping: 90 days];
        pub fax: Phone = 5 "fax", basic, for [Shipping: 90 days];
    }
}

fn main() {}
