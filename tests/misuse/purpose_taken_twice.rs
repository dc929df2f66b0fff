use customer_vault::purposes;

purposes! {
    pub Shipping: Contract = 1 "shipping";
    pub Returns: Contract = 1 "returns";
    pub Parcels: Contract = 2 "shipping";
}

fn main() {}
