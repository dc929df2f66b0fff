//! A session of customers, staff, carrier and operator, over HTTP, as anybody's client would hold it.

#![allow(clippy::indexing_slicing, reason = "of JSON: what is missing is null")]

use std::error::Error;

use serde_json::{Value, json};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// Somebody who asks.
pub struct Client {
    agent: ureq::Agent,
    world: String,
    operator: String,
}

impl Client {
    /// For a service at these two addresses.
    pub fn new(world: &str, operator: &str) -> Self {
        // A new connection each time: who is refused before the body was read finds the old one closed.
        let config = ureq::Agent::config_builder().http_status_as_error(false).max_idle_connections(0);
        let address = |at: &str| format!("http://{at}");
        Client { agent: config.build().new_agent(), world: address(world), operator: address(operator) }
    }

    /// Signs somebody up, and gives the status.
    #[cfg(test)]
    pub fn sign_up(&self, email: &str) -> Fallible<u16> {
        let home = json!({ "lines": "1 Long Street", "country": "GB" });
        let body = json!({ "name": "Some Body", "email": email, "address": home }).to_string();
        let request = self.agent.post(format!("{}/customers", self.world));
        let response = request.header("content-type", "application/json").send(body)?;
        Ok(response.status().as_u16())
    }

    /// Asks, prints question and answer, and checks the status.
    fn ask(&self, what: &str, bearer: &str, body: Option<&Value>, expected: u16) -> Fallible<Value> {
        let (method, path) = what.split_once(' ').ok_or("method and path")?;
        let base = if ["/tokens", "/daily"].contains(&path) { &self.operator } else { &self.world };
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {bearer}"));
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut response = self.agent.run(request.body(body.clone())?)?;
        let (status, text) = (response.status().as_u16(), response.body_mut().read_to_string()?);
        println!("{method:<6} {path} {}", abridged(&body));
        println!("       {status} {}", abridged(&text));
        if status != expected {
            return Err(format!("{what}: {status} instead of {expected}").into());
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}

/// Without most of long secrets.
fn abridged(text: &str) -> String {
    let short = |part: &str| match part.char_indices().nth(14) {
        Some((at, _)) if part.len() > 40 && !part.contains(' ') => {
            format!("{}…", part.get(..at).unwrap_or_default())
        }
        _ => part.to_owned(),
    };
    text.split('"').map(short).collect::<Vec<_>>().join("\"")
}

fn text<'a>(value: &'a Value, key: &str) -> Fallible<&'a str> {
    value.get(key).and_then(Value::as_str).ok_or_else(|| format!("no {key} in the answer").into())
}

/// All of it. `operator` is the operator's secret.
pub fn run(client: &Client, operator: &str) -> Fallible<()> {
    let home = json!({ "lines": "1 Long Street\nHalifax", "country": "GB" });
    println!("\nAnn signs up, and nobody else can with her address:");
    let ann = json!({
        "name": "Ann Baker", "email": "Ann@Example.org", "phone": "0114 496 0787", "address": home,
    });
    let signed_up = client.ask("POST /customers", "", Some(&ann), 201)?;
    let session = text(&signed_up, "session")?;
    client.ask("POST /customers", "", Some(&ann), 409)?;
    let ben = json!({ "name": "Ben Carter", "email": "ben@example.org", "address": home, "marketing": true });
    let signed_up = client.ask("POST /customers", "", Some(&ben), 201)?;
    let other = text(&signed_up, "session")?;

    println!("\nWhat is wrong is said by code, and never quoted:");
    let wrong = json!({ "name": "Cid", "email": "no address", "address": home });
    client.ask("POST /customers", "", Some(&wrong), 422)?;
    client.ask("POST /customers", "", Some(&json!({ "name": 4711 })), 400)?;
    client.ask("GET /me", "guessed", None, 401)?;

    println!("\nShe orders twice:");
    let mut form = json!({
        "name": "Ann Baker", "phone": "0114 496 0787", "address": home,
        "lines": [{ "item": "Kettle", "quantity": 1, "cents": 4900 }],
        "payment": { "token": "tok_8fJ2kq", "last_four": "4242" },
    });
    let placed = client.ask("POST /orders", session, Some(&form), 201)?;
    let first = placed.get("order").and_then(Value::as_u64).ok_or("no order")?;
    form["payment"]["token"] = "4242 4242 4242 4242".into();
    client.ask("POST /orders", session, Some(&form), 422)?;
    form["payment"]["token"] = "4242424242424242".into();
    client.ask("POST /orders", session, Some(&form), 422)?;
    form["payment"]["token"] = "tok_Kd91xw".into();
    let placed = client.ask("POST /orders", session, Some(&form), 201)?;
    let second = placed.get("order").and_then(Value::as_u64).ok_or("no order")?;

    println!("\nShe moves, and agrees to letters:");
    let moved = json!({ "lines": "2 Short Lane\nLeeds", "country": "GB" });
    client.ask("PUT /me/address", session, Some(&moved), 204)?;
    client.ask("GET /me", session, None, 200)?;
    client.ask("PUT /me/marketing", session, None, 204)?;

    println!("\nThe operator gives tokens to support, to marketing, and to the carrier of one parcel:");
    let token = |body: Value| -> Fallible<String> {
        Ok(text(&client.ask("POST /tokens", operator, Some(&body), 201)?, "token")?.to_owned())
    };
    client.ask(
        "POST /tokens",
        "guessed",
        Some(&json!({ "to": "eve", "for": "support", "hours": 8 })),
        401,
    )?;
    let support = token(json!({ "to": "sue", "for": "support", "hours": 8 }))?;
    let marketing = token(json!({ "to": "max", "for": "marketing", "hours": 1 }))?;
    let carrier = token(json!({ "to": "carrier", "for": "shipping", "hours": 24, "order": first }))?;
    let packing = token(json!({ "to": "pam", "for": "shipping", "hours": 8 }))?;

    println!("\nSupport finds her by her address; a token for shipping does not:");
    let email = json!({ "email": "Ann@example.ORG" });
    client.ask("POST /support/customers", &support, Some(&email), 200)?;
    client.ask("POST /support/customers", &support, Some(&json!({ "email": "eve@example.org" })), 404)?;
    client.ask("POST /support/customers", &packing, Some(&email), 403)?;

    println!(
        "\nThe packer sees the label, the carrier as much of it as the token reaches, and support nothing:"
    );
    let label = format!("GET /orders/{first}/label");
    client.ask(&label, &packing, None, 200)?;
    client.ask(&label, &carrier, None, 200)?;
    client.ask(&label, &support, None, 403)?;
    client.ask(&format!("POST /orders/{first}/shipped"), &carrier, None, 204)?;

    println!("\nA letter goes to who has agreed; then she withdraws:");
    let sent = client.ask("POST /marketing/letters", &marketing, None, 200)?;
    assert_eq!(sent, json!({ "sent": 2, "left out": 0 }));
    client.ask("DELETE /me/marketing", session, None, 204)?;
    let sent = client.ask("POST /marketing/letters", &marketing, None, 200)?;
    assert_eq!(sent, json!({ "sent": 1, "left out": 1 }));

    println!("\nShe asks what is held of her, and to be forgotten, while her second order is still open:");
    let export = client.ask("GET /me/export", session, None, 200)?;
    assert_eq!(export["address"]["lines"], json!(["2 Short Lane", "Leeds"]));
    assert_eq!(export["orders"].as_array().map(Vec::len), Some(2));
    assert_eq!(export["orders"][1]["lines"][0]["item"], "Kettle");
    let receipt = client.ask("POST /me/forget", session, None, 200)?;
    assert!(receipt["stays"]["shipping"].is_string() && receipt["stays"]["invoicing"].is_string());
    client.ask("GET /me", session, None, 401)?;
    client.ask("POST /support/customers", &support, Some(&email), 404)?;
    let label = format!("GET /orders/{second}/label");
    client.ask(&label, &packing, None, 200)?;
    client.ask(&format!("POST /orders/{second}/shipped"), &packing, None, 204)?;

    println!(
        "\nBen has nothing open: of him the books would stay, had he ever ordered. Then the day's work:"
    );
    let receipt = client.ask("POST /me/forget", other, None, 200)?;
    assert!(receipt["stays"]["shipping"].is_null());
    client.ask("POST /marketing/letters", &marketing, None, 200)?;
    client.ask("POST /daily", operator, None, 200)?;
    println!("\nAnn may come back, as somebody new:");
    client.ask("POST /customers", "", Some(&ann), 201)?;
    Ok(())
}
