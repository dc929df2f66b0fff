//! Canaries in every built-in type, sealed, opened, stored, changed and forgotten: they are found nowhere. ABUSE 21.
#![cfg(all(feature = "testing", feature = "redb"))]
#![allow(clippy::exhaustive_enums, clippy::exhaustive_structs, reason = "a test")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]
#![allow(missing_docs, unreachable_pub, clippy::arithmetic_side_effects, reason = "a test")]

use std::fmt::{Debug, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Duration;

use customer_vault::keeper::{Argon2Cost, FileKeeper, FileSecret, Passphrase};
use customer_vault::store::{MemoryStore, Range, RedbStore, Store};
use customer_vault::testing::{ManualClock, MemoryKeeper, test_ground, tester};
use customer_vault::value::{
    AsEntered, BrowsingEvent, Bytes, CardNumber, Country, DateOfBirth, Email, FreeText, Iban, IpAddress,
    OrderLine, PaymentToken, PersonName, Phone, PostalAddress, ResidentId, SearchQuery,
};
use customer_vault::*;
use pollster::block_on;

purposes! {
    pub Shipping: Contract = 1 "shipping";
    pub Invoicing: LegalObligation = 3 "invoicing";
}

/// What a value's own code can see of an encoder that others have written to.
static SEEN: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// A value of the shop's own, which looks.
#[derive(Debug)]
pub struct Nosy;

impl Value for Nosy {
    fn encoded_len(&self) -> usize {
        0
    }
    fn encode(&self, out: &mut Encoder<'_>) {
        SEEN.lock().unwrap().push(("an encoder".into(), format!("{out:?} {out:#?}")));
    }
    fn decode(bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(Nosy)
    }
}

record! {
    pub struct Person[String] / SealedPerson / PersonView in person = "person" {
        pub name: PersonName = 1 "name", basic, for [Shipping: 90 days];
        pub email: Email = 2 "email", basic, for [Shipping: 90 days];
        pub phone: Phone = 3 "phone", basic, for [Shipping: 90 days], padded 32;
        pub address: PostalAddress = 4 "address", basic, for [Shipping: 90 days];
        pub resident: ResidentId = 5 "resident", basic sensitive, for [Shipping: 90 days];
        pub born: DateOfBirth = 6 "born", basic, for [Shipping: 90 days];
        pub card: CardNumber = 7 "card", transaction sensitive, for [Shipping: 90 days];
        pub iban: Iban = 8 "iban", transaction, for [Shipping: 90 days];
        pub ip: IpAddress = 9 "ip", behaviour, for [Shipping: 90 days];
        pub text: Option<FreeText> = 10 "text", basic, for [Shipping: 90 days];
        pub lines: Vec<OrderLine> = 11 "lines", transaction, for [Shipping: 90 days];
        pub query: SearchQuery = 12 "query", behaviour, for [Shipping: 90 days];
        pub event: BrowsingEvent = 13 "event", behaviour, for [Shipping: 90 days];
        pub payment: PaymentToken = 14 "payment", transaction, for [Shipping: 90 days];
        pub scan: Bytes = 15 "scan", basic, for [Shipping: 90 days];
        pub entered: AsEntered<Phone> = 16 "entered", basic, for [Shipping: 90 days];
        pub nosy: Nosy = 17 "nosy", basic, for [Shipping: 90 days];
        pub invoiced: PersonName = 18 "invoiced", basic, for [Invoicing: 2 years];
    }
}

/// Text that stands in the values, the ids and the request, and nowhere else.
const NEEDLES: &[&str] = &[
    "Qanary Namesworth",
    "qanary.mail",
    "mailhost.example",
    "4420794601",
    "Qanary Road",
    "Qanaryham",
    "11010519491231002X",
    "1949-12-31",
    "1903-07-19",
    "4111111111111111",
    "DE89370400440532013000",
    "2001:db8:7161",
    "7161:6e61",
    "qanary free text",
    "qanary tea",
    "98765432",
    "qanary search",
    "qanary looked",
    "qanary/page",
    "1111222233334",
    "tok_qanary",
    "qanary scan",
    "qanary entered",
    "Qanary Invoiced",
    "qanary-subject",
    "qanary-order",
    "Qanary Requester",
    "Qanary Changed",
];

fn a_person() -> Person {
    let gb = Country::parse("GB").unwrap();
    let address = PostalAddress::parse("7 Qanary Road", gb).unwrap().with_city("Qanaryham").unwrap();
    Person {
        name: PersonName::parse("Qanary Namesworth").unwrap(),
        email: Email::parse("qanary.mail@mailhost.example").unwrap(),
        phone: Phone::parse_international("+44 20 7946 0123").unwrap(),
        address,
        resident: ResidentId::parse("11010519491231002X").unwrap(),
        born: DateOfBirth::parse("1903-07-19").unwrap(),
        card: CardNumber::parse("4111111111111111").unwrap(),
        iban: Iban::parse("DE89370400440532013000").unwrap(),
        ip: IpAddress::parse("2001:db8:7161:6e61:7279::1").unwrap(),
        text: Some(FreeText::parse("qanary free text").unwrap()),
        lines: vec![OrderLine::parse("qanary tea", 2, 98_765_432, "USD").unwrap()],
        query: SearchQuery::parse("qanary search").unwrap(),
        event: BrowsingEvent::parse("qanary looked", "qanary/page", 1_111_222_233_334).unwrap(),
        payment: PaymentToken::parse("tok_qanary", "1111").unwrap(),
        scan: Bytes::parse(b"qanary scan").unwrap(),
        entered: AsEntered::keep("qanary entered").unwrap(),
        nosy: Nosy,
        invoiced: PersonName::parse("Qanary Invoiced").unwrap(),
    }
}

/// What was shown, and where.
#[derive(Default)]
struct Shown {
    all: Vec<(String, String)>,
    /// What opens the commitment in the certificate, which is for the person alone.
    opening: String,
}

impl Shown {
    fn debug(&mut self, what: &str, value: &dyn Debug) {
        self.all.push((what.into(), format!("{value:?} {value:#?}")));
    }

    fn error<T: Debug>(&mut self, what: &str, outcome: Result<T>) {
        let why = outcome.err().unwrap_or_else(|| panic!("{what} did not fail"));
        self.text(what, &why);
        self.all.push((what.into(), why.code().into()));
    }

    fn text(&mut self, what: &str, value: &(impl Display + Debug)) {
        self.all.push((what.into(), format!("{value} {value:?} {value:#?}")));
    }

    /// Gathers all, so that one failure tells all.
    fn check(self) {
        let mut leaks = Vec::new();
        for (what, text) in &self.all {
            for needle in NEEDLES {
                if forms(needle).iter().any(|form| text.contains(form)) {
                    leaks.push(format!("{needle} in {what}"));
                }
            }
            if !self.opening.is_empty() && text.contains(&self.opening) {
                leaks.push(format!("the opening in {what}"));
            }
        }
        assert!(leaks.is_empty(), "{leaks:#?}");
    }
}

/// How bytes come out of careless code: as text, as a list of numbers, as hex of either case, as base64.
fn forms(needle: &str) -> Vec<String> {
    let list = |sep: &str| needle.bytes().map(|b| b.to_string()).collect::<Vec<_>>().join(sep);
    let hex = needle.bytes().fold(String::new(), |hex, b| hex + &format!("{b:02x}"));
    let upper = hex.to_uppercase();
    let mut forms = vec![needle.to_owned(), needle.to_lowercase(), list(", "), list(",\n    "), hex, upper];
    // Base64 depends on where the needle starts: what is the same in all surroundings.
    for skip in 0..3 {
        let whole = (needle.len() - skip) / 3 * 3;
        forms.push(base64(&needle.as_bytes()[skip..skip + whole]));
    }
    forms
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0_usize, |n, b| n << 8 | usize::from(*b));
        out.extend((0..4).rev().map(|i| char::from(ALPHABET[n >> (6 * i) & 63])));
    }
    out
}

/// Whether raw bytes hold a needle, as UTF-8, UTF-16, UTF-32 or base64.
fn held(raw: &[u8]) -> Option<&'static str> {
    NEEDLES.iter().copied().find(|needle| {
        let mut all: Vec<Vec<u8>> = forms(needle).into_iter().map(String::into_bytes).collect();
        all.push(needle.encode_utf16().flat_map(u16::to_le_bytes).collect());
        all.push(needle.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect());
        all.iter().any(|form| raw.windows(form.len()).any(|window| window == form.as_slice()))
    })
}

#[test]
fn the_search_finds_what_careless_code_would_show() {
    let name = "Qanary Namesworth";
    let careless = [
        name.to_owned(),
        format!("{:?}", name.as_bytes()),
        format!("{:#?}", Some(name.as_bytes())).replace(",\n        ", ", "),
        format!("id=17&{}", base64(format!("a{name}").as_bytes())),
        format!("x{}", base64(format!("ab{name}b").as_bytes())),
    ];
    for text in careless {
        let mut shown = Shown::default();
        shown.all.push(("careless".into(), text.clone()));
        assert!(catch_unwind(AssertUnwindSafe(|| shown.check())).is_err(), "{text}");
        assert!(held(text.as_bytes()).is_some(), "{text}");
    }
    assert!(held(&name.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()).is_some());
    assert!(held(b"nothing of the kind").is_none());
}

/// Does all that a shop does, and shows all that it gets.
fn live<S: Store>(store: S, keeper: impl keeper::Keeper + witness::Witness + Clone, shown: &mut Shown) {
    let clock = ManualClock::at(Day::from_ymd(2026, 1, 5).unwrap());
    let options = || Options::new().record::<Person>().clock(clock.clone());
    shown.debug("options", &options());
    shown.debug("keeper", &keeper);
    shown.debug("store", &store);
    let vault = block_on(options().create(store, keeper.clone(), keeper)).unwrap();
    let (id, order) = (SubjectId::new("qanary-subject@mailhost.example").unwrap(), "qanary-order".to_owned());
    let (me, why) = (tester(), test_ground());
    shown.debug("subject", &id);
    shown.debug("record id", &order.id_bytes());
    block_on(vault.enroll(&id, [], &me, &why)).unwrap();
    shown.error("enroll twice", block_on(vault.enroll(&id, [], &me, &why)));

    let sealer = block_on(vault.sealer::<Person>(&id, &me, &why)).unwrap();
    shown.debug("record", &a_person());
    let sealed = sealer.seal(a_person(), &order).unwrap();
    shown.debug("sealer", &sealer);
    shown.debug("sealed", &sealed);
    shown.all.push(("sealed as JSON".into(), serde_json::to_string(&sealed).unwrap()));
    assert_eq!(held(sealed.as_bytes()), None);
    let field = sealer.seal_field::<person::name>(a_person().name, &order).unwrap();
    shown.debug("sealed field", &field);
    block_on(vault.put(&id, &order, &sealed, &me, &why)).unwrap();

    let scope = Scope::subject(&id).and(&id).field::<person::name>();
    shown.debug("scope", &scope);
    let hour = Duration::from_secs(3600);
    let token = block_on(vault.issue::<Shipping>(&me, &why, hour, Scope::subject(&id))).unwrap();
    shown.debug("token", &token);
    let narrowing = token.narrow().subject(&id);
    shown.debug("narrowing", &narrowing);
    let narrowed = narrowing.done().unwrap();
    for token in [&token, &narrowed] {
        shown.all.push(("token text".into(), token.expose().to_owned()));
        let url = token.expose().replace('-', "+").replace('_', "/");
        shown.all.push(("token text in the other alphabet".into(), url));
    }
    let grant = block_on(vault.unlock::<Shipping>(&narrowed, &id)).unwrap();
    let sealed = block_on(vault.get::<Person>(&id, &order, &me, &why)).unwrap().unwrap();
    let view = sealed.open(&grant, &order).unwrap();
    shown.debug("grant", &grant);
    shown.debug("view", &view);
    everything_in(&view, shown);
    let opened = field.open(&grant, &order).unwrap();
    assert_eq!(opened.expose(), "Qanary Namesworth");
    shown.debug("opened field", &opened);
    let listed = block_on(vault.list::<Person, String>(&id, &me, &why)).unwrap();
    assert_eq!(listed.len(), 1);
    shown.debug("listed", &listed.iter().map(|(_, sealed)| sealed).collect::<Vec<_>>());

    let sealed = sealed
        .update(&sealer, &grant, &order, |set| {
            set.set::<person::name>(PersonName::parse("Qanary Changed").unwrap());
            set.set::<person::born>(DateOfBirth::parse("1903-07-19").unwrap());
            shown.debug("changes", set);
        })
        .unwrap();
    block_on(vault.put(&id, &order, &sealed, &me, &why)).unwrap();

    shown.error("wrong record id", sealed.open(&grant, &"qanary-other".to_owned()));
    let altered: Vec<u8> = sealed.as_bytes().iter().rev().skip(1).rev().copied().collect();
    shown.error("cut", Sealed::<Person>::from_bytes(altered).and_then(|s| s.open(&grant, &order)));
    let json = serde_json::from_str::<SealedPerson>("\"qanary free text\"");
    shown.text("text that is no sealed value", &json.unwrap_err());
    shown.error("no token", Token::parse("tok_qanary"));
    shown.error(
        "unknown",
        block_on(vault.unlock::<Shipping>(&token, &SubjectId::new("qanary-subject").unwrap())),
    );
    panics(&sealed, &grant, &order, &view, shown);

    let request = Forget::by(&me, &why).requested_by("Qanary Requester");
    shown.debug("request", &request);
    let receipt = block_on(vault.forget(&id, request)).unwrap();
    shown.opening = format!("{:?}", receipt.opening);
    shown.debug("receipt", &receipt);
    shown.error("after the forget", sealed.open(&grant, &order));
    shown.error("seal after", sealer.seal(a_person(), &order));
    shown.error("put after", block_on(vault.put(&id, &order, &sealed, &me, &why)));
    clock.advance_days(7);
    shown.debug("shred", &block_on(vault.shred(&me, &why)).unwrap());
    shown.all.push(("checkpoint".into(), block_on(vault.checkpoint()).unwrap()));
    shown.debug("expire", &block_on(vault.expire(&me, &why)).unwrap());
    for note in block_on(vault.expiry_notes()).unwrap() {
        shown.all.push(("expiry note".into(), note));
    }
    for _ in 0..5 {
        clock.advance_days(7);
        block_on(vault.expire(&me, &why)).unwrap();
    }
    let settled = block_on(vault.settle(&me, &why)).unwrap();
    assert_eq!(settled.certificates.len(), 1);
    shown.all.push(("certificate".into(), settled.certificates[0].as_str().to_owned()));
    shown.debug("settled", &settled);

    shown.all.push(("register".into(), vault.registry().to_markdown()));
    shown.all.push(("register".into(), vault.registry().to_json()));
    shown.debug("registry", &vault.registry());
    let log = block_on(vault.log()).unwrap();
    assert!(log.len() > 20);
    for entry in &log {
        shown.text("log entry", entry);
    }
    shown.debug("tokens", &block_on(vault.tokens()).unwrap());
    shown.debug("log report", &block_on(vault.verify_log()).unwrap());
    shown.debug("vault", &vault);
    // Not taken away: another test reads them too.
    shown.all.extend(SEEN.lock().unwrap().iter().cloned());
}

/// Every value is there, and shows nothing of itself.
fn everything_in(view: &PersonView<Shipping>, shown: &mut Shown) {
    assert_eq!(view.name().unwrap().expose(), "Qanary Namesworth");
    assert_eq!(view.text().unwrap().unwrap().expose(), "qanary free text");
    shown.debug("name", &view.name());
    shown.debug("email", &view.email());
    shown.debug("phone", &view.phone());
    shown.debug("address", &view.address());
    shown.debug("resident", &view.resident());
    shown.debug("born", &view.born());
    shown.debug("born in resident", &view.resident().unwrap().date_of_birth());
    shown.debug("card", &view.card());
    shown.debug("iban", &view.iban());
    shown.debug("ip", &view.ip());
    shown.debug("text", &view.text());
    shown.debug("lines", &view.lines());
    shown.debug("query", &view.query());
    shown.debug("event", &view.event());
    shown.debug("payment", &view.payment());
    shown.debug("scan", &view.scan());
    shown.debug("entered", &view.entered());
}

/// What a panic would print: careless code unwraps.
fn panics(
    sealed: &SealedPerson,
    grant: &Grant<Shipping>,
    order: &String,
    view: &PersonView<Shipping>,
    shown: &mut Shown,
) {
    let calls: [(&str, &dyn Fn()); 5] = [
        ("unwrap of a refusal", &|| drop(sealed.open(grant, &"qanary-other".to_owned()).unwrap())),
        ("unwrap_err of a view", &|| _ = sealed.open(grant, order).unwrap_err()),
        ("unwrap_err of a name", &|| _ = view.name().unwrap_err()),
        ("unwrap_err of lines", &|| _ = view.lines().unwrap_err()),
        ("expect of a value that does not parse", &|| {
            drop(Email::parse("qanary free text").expect("an email"));
        }),
    ];
    for (what, call) in calls {
        let panic = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
        let text = panic.downcast_ref::<String>().cloned();
        shown.all.push((what.into(), text.unwrap_or_else(|| panic!("{what} has no text"))));
    }
}

#[test]
fn abuse_21_canaries_are_in_nothing_that_is_shown_or_stored_in_memory() {
    let store = MemoryStore::new();
    let mut shown = Shown::default();
    live(store.clone(), MemoryKeeper::new(), &mut shown);
    assert!(shown.all.iter().any(|(what, _)| what == "an encoder"));
    shown.check();
    let rows =
        block_on(store.scan(Range { start: Vec::new(), end: vec![0xFF; 64] }, usize::MAX)).unwrap().rows;
    assert!(rows.len() > 100);
    for (key, row) in rows {
        assert_eq!(held(&key), None);
        assert_eq!(held(&row.value), None);
    }
}

#[test]
fn abuse_21_canaries_are_in_no_file() {
    let dir = std::env::temp_dir().join(format!("customer-vault-leaks-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let words = Passphrase::new("correct horse battery staple".to_owned()).unwrap();
    let secret = FileSecret::passphrase_at(words, Argon2Cost::insecure_for_tests());
    let keeper = FileKeeper::create(dir.join("keeper.key"), secret).unwrap();
    let mut shown = Shown::default();
    live(RedbStore::create(dir.join("vault.redb")).unwrap(), keeper, &mut shown);
    shown.check();
    let mut files = 0;
    for file in std::fs::read_dir(&dir).unwrap() {
        let raw = std::fs::read(file.unwrap().path()).unwrap();
        assert_eq!(held(&raw), None);
        files += 1;
    }
    assert!(files >= 3);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn abuse_21_what_does_not_parse_is_in_no_error() {
    let gb = Country::parse("GB").unwrap();
    let canary = "qanary free text\u{202e}";
    let errors: Vec<Option<value::Invalid>> = vec![
        PersonName::parse(canary).err(),
        Email::parse(canary).err(),
        Phone::parse(canary, gb).err(),
        PostalAddress::parse(canary, gb).err(),
        ResidentId::parse(canary).err(),
        DateOfBirth::parse(canary).err(),
        CardNumber::parse(canary).err(),
        Iban::parse(canary).err(),
        IpAddress::parse(canary).err(),
        FreeText::parse(canary).err(),
        OrderLine::parse(canary, 1, 1, "USD").err(),
        SearchQuery::parse(canary).err(),
        BrowsingEvent::parse("a", canary, 1).err(),
        PaymentToken::parse(canary, "1111").err(),
        AsEntered::<Phone>::keep(canary).unwrap().parsed_by(|text| Phone::parse(text, gb)).err(),
    ];
    let mut shown = Shown::default();
    for error in errors {
        shown.text("a parser's error", &Error::from(error.expect("it does not parse")));
    }
    shown.check();
}
