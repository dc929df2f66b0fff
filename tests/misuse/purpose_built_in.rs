use customer_vault::purposes;

purposes! {
    pub Everything: Contract = 65520 "everything";
    pub Access: Contract = 1 "subject-access";
}

fn main() {}
