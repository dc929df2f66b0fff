//! The AWS Encryption SDK with a raw AES keyring: a data key for each message, HKDF, key commitment; with a signature where
//! nothing is said, and without.

use std::collections::HashMap;
use std::rc::Rc;

use aws_esdk::client::Client;
use aws_esdk::material_providers::client::Client as Providers;
use aws_esdk::material_providers::types::AesWrappingAlg;
use aws_esdk::material_providers::types::EsdkAlgorithmSuiteId;
use aws_esdk::material_providers::types::keyring::KeyringRef;
use aws_esdk::material_providers::types::material_providers_config::MaterialProvidersConfig;
use aws_esdk::types::aws_encryption_sdk_config::AwsEncryptionSdkConfig;
use tokio::runtime::Runtime;

use super::of_bytes;
use crate::measure::{Keys, Side};
use crate::plain;

struct Esdk {
    runtime: Runtime,
    client: Client,
    keyring: KeyringRef,
}

pub fn sides() -> Vec<Side> {
    // Its clients build things that want a runtime; nothing here waits for the network.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = Client::from_conf(AwsEncryptionSdkConfig::builder().build().unwrap()).unwrap();
    let providers = Providers::from_conf(MaterialProvidersConfig::builder().build().unwrap()).unwrap();
    let keyring = providers
        .create_raw_aes_keyring()
        .key_name("customers")
        .key_namespace("shop")
        .wrapping_key(vec![5; 32])
        .wrapping_alg(AesWrappingAlg::AlgAes256GcmIv12Tag16);
    let keyring = runtime.block_on(keyring.send()).unwrap();
    let esdk = Rc::new(Esdk { runtime, client, keyring });
    [
        ("raw AES keyring, suite without a signature", EsdkAlgorithmSuiteId::AlgAes256GcmHkdfSha512CommitKey),
        (
            "raw AES keyring, its default suite",
            EsdkAlgorithmSuiteId::AlgAes256GcmHkdfSha512CommitKeyEcdsaP384,
        ),
    ]
    .into_iter()
    .flat_map(|(way, suite)| with(&esdk, way, suite))
    .collect()
}

fn context() -> HashMap<String, String> {
    [("customer", plain::CUSTOMER), ("record", "order"), ("id", "7")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn with(esdk: &Rc<Esdk>, way: &'static str, suite: EsdkAlgorithmSuiteId) -> Vec<Side> {
    let (one, two) = (Rc::clone(esdk), Rc::clone(esdk));
    of_bytes(
        "aws-esdk",
        way,
        Keys::EachValue,
        move |bytes| {
            let sealed = one
                .client
                .encrypt()
                .plaintext(bytes)
                .keyring(one.keyring.clone())
                .encryption_context(context())
                .algorithm_suite_id(suite);
            one.runtime.block_on(sealed.send()).unwrap().ciphertext.unwrap().into_inner()
        },
        move |bytes| {
            let opened = two
                .client
                .decrypt()
                .ciphertext(bytes)
                .keyring(two.keyring.clone())
                .encryption_context(context());
            two.runtime.block_on(opened.send()).unwrap().plaintext.unwrap().into_inner()
        },
    )
}
