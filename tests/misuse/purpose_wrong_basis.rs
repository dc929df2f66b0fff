use customer_vault::purposes;

purposes! {
    pub Shipping: contract = 1 "shipping";
}

fn main() {}
