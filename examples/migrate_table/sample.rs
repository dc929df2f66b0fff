//! A table as a shop may have had it for years: the sample's customers, in plain columns.

use customer_vault::store::deadpool_postgres::tokio_postgres::{Client, Error};
use serde_json::Value;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data");

const TABLE: &str = "
    CREATE TABLE customers (
        id text PRIMARY KEY,
        last_order date NOT NULL,
        marketing boolean NOT NULL,
        country text NOT NULL,
        name text NOT NULL,
        email text,
        phone text,
        address text NOT NULL,
        born text
    )";

/// A row as it is inserted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: String,
    pub last_order: String,
    pub marketing: bool,
    pub country: String,
    pub name: String,
    pub email: Option<String>,
    pub phone: Option<String>,
    pub address: String,
    pub born: Option<String>,
}

/// The first `most` customers of the sample, then some whose rows have to be refused, with ids of their own.
pub fn rows(most: usize) -> std::io::Result<(Vec<Row>, Vec<Row>)> {
    let read = |file: &str| std::fs::read(format!("{DATA}/{file}"));
    let good = String::from_utf8_lossy(&read("customers.jsonl")?)
        .lines()
        .take(most)
        .filter_map(|line| row(&serde_json::from_str(line).ok()?))
        .collect();
    // What is wrong with the others lies in columns that this table does not have.
    let here =
        ["email", "two at", "right-to-left", "empty name", "name of", "lone", "phone", "born", "country"];
    let bad = String::from_utf8_lossy(&read("customers-messy.jsonl")?)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|value| {
            let why = value.get("why_bad").and_then(Value::as_str).unwrap_or_default();
            here.iter().any(|start| why.starts_with(start))
        })
        .filter_map(|value| row(&value))
        .map(|row| Row { id: format!("bad-{}", row.id), ..row })
        .collect();
    Ok((good, bad))
}

fn row(value: &Value) -> Option<Row> {
    let text = |key| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let list = |key| value.get(key).and_then(Value::as_array).into_iter().flatten();
    let placed = |order: &Value| Some(order.get("placed")?.as_str()?.get(..10)?.to_owned());
    // Ten characters, so that the greatest text is the newest day.
    let last = list("orders").filter_map(placed).max();
    Some(Row {
        id: text("customer")?,
        last_order: last.unwrap_or_else(|| "2025-05-05".to_owned()),
        marketing: list("consents").any(|consent| consent == "marketing"),
        country: text("country")?,
        name: text("name")?,
        email: text("email"),
        phone: text("phone"),
        address: text("address")?,
        born: text("born"),
    })
}

/// Makes the table and fills it.
pub async fn load(client: &Client, rows: &[Row]) -> Result<(), Error> {
    client.batch_execute(TABLE).await?;
    let insert = "INSERT INTO customers (id, last_order, marketing, country, name, email, phone, address, born) \
                  VALUES ($1, least(to_date($2, 'YYYY-MM-DD'), current_date), $3, $4, $5, $6, $7, $8, $9)";
    let insert = client.prepare(insert).await?;
    client.batch_execute("BEGIN").await?;
    for row in rows {
        let Row { id, last_order, marketing, country, name, email, phone, address, born } = row;
        client
            .execute(&insert, &[id, last_order, marketing, country, name, email, phone, address, born])
            .await?;
    }
    client.batch_execute("COMMIT; ANALYZE customers").await
}
