//! What the attributes refuse, each in words of its own; what they accept is compiled all over the SDK.

use quote::quote;

use super::expand;

fn refused(field: proc_macro2::TokenStream) -> String {
    let item = quote!(
        struct P {
            #field
        }
    );
    expand(quote!(source = "in"), item).expect_err("it is refused").to_string()
}

#[test]
fn a_migration_that_cannot_be_meant_is_refused() {
    let expected = "expected `migrate(from = 1, old = Type, with = function)`";
    for (attribute, message) in [
        (quote!(migrate(from = 1, old = i64)), expected),
        (quote!(migrate(from = 1, new = i64, with = f)), expected),
        (
            quote!(migrate(from = 1, old = i64, with = f)),
            "a migration comes from a version below that of the store, which is 1",
        ),
        (
            quote!(version = 2, migrate(from = 2, old = i64, with = f)),
            "a migration comes from a version below that of the store, which is 2",
        ),
        (
            quote!(version = 2, migrate(from = 1, old = i64, with = f), migrate(from = 1, old = i64, with = g)),
            "the migration from version 1 is declared twice",
        ),
    ] {
        assert_eq!(refused(quote!(#[store(#attribute)] s: Store<Raw, i64>)), message);
    }
    let message = refused(quote!(#[sink(migrate(from = 1, old = i64, with = f))] s: Sink<Raw, i64>));
    assert_eq!(message, "expected `name = \"…\"`");
}

#[test]
fn only_who_migrates_exports_it() {
    let text = |field| {
        let item = quote!(
            struct P {
                #field
            }
        );
        expand(quote!(source = "in"), item).expect("it is right").to_string()
    };
    let with = text(quote!(#[store(version = 2, migrate(from = 1, old = i64, with = f))] s: Store<Raw, f64>));
    assert!(with.contains(":: sandbar :: __export ! (P , migrates)"), "{with}");
    let without = text(quote!(#[store(version = 2)] s: Store<Raw, f64>));
    assert!(without.contains(":: sandbar :: __export ! (P)"), "{without}");
}
