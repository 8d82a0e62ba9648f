//! The attribute macro of the `sandbar` crate: reads a processor's struct, writes its `Declare` implementation and the
//! component's exports. Every mistake in the attributes is a compile error at its place; nothing is guessed.

use proc_macro2::TokenStream;
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Field, Fields, ItemStruct, LitInt, LitStr, Path, Result, Type};

/// Declares the topology of a processor and exports it from the component.
///
/// On the struct: `source = "name"`, once for each source. On its fields: `#[store]` with the options `prefetch` (fetch
/// the entries of all record keys of a batch at once), `version = 2`, `migrate(from = 1, old = Type, with = function)`,
/// once for each older version whose rows the module takes over, and `name = "…"`; `#[sink]` with the option
/// `name = "…"`. Stores and sinks are named like their fields unless `name` says otherwise. Every other field is made
/// by `Default`.
#[proc_macro_attribute]
pub fn processor(arguments: proc_macro::TokenStream, item: proc_macro::TokenStream) -> proc_macro::TokenStream {
    expand(arguments.into(), item.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}

fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let mut item: ItemStruct = syn::parse2(item)?;
    let sources = sources(arguments)?;
    if !item.generics.params.is_empty() {
        return Err(Error::new(item.generics.span(), "a processor cannot be generic: the component exports one type"));
    }
    let mut seen = Seen::default();
    let fields = match &mut item.fields {
        Fields::Named(fields) => {
            let made = fields.named.iter_mut().map(|field| make_field(field, &mut seen));
            let made = made.collect::<Result<Vec<_>>>()?;
            quote!({ #(#made),* })
        }
        Fields::Unit => TokenStream::new(),
        Fields::Unnamed(fields) => {
            return Err(Error::new(
                fields.span(),
                "a processor needs named fields: stores and sinks are named after them",
            ));
        }
    };
    let name = &item.ident;
    let migrates = if seen.migrates { quote!(, migrates) } else { TokenStream::new() };
    Ok(quote! {
        #item

        impl ::sandbar::Declare for #name {
            fn declare(declaration: &mut ::sandbar::Declaration) -> Self {
                #(declaration.source(#sources);)*
                Self #fields
            }
        }

        #[cfg(target_arch = "wasm32")]
        ::sandbar::__export!(#name #migrates);

        // Natively nothing but tests makes a processor: without a use, the compiler would call it dead code.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn(&mut ::sandbar::Declaration) -> #name = <#name as ::sandbar::Declare>::declare;
    })
}

/// `source = "a", source = "b"`.
fn sources(arguments: TokenStream) -> Result<Vec<LitStr>> {
    let mut sources: Vec<LitStr> = Vec::new();
    let parser = syn::meta::parser(|meta: ParseNestedMeta<'_>| {
        if !meta.path.is_ident("source") {
            return Err(meta.error("expected `source = \"name\"`"));
        }
        let source: LitStr = meta.value()?.parse()?;
        if sources.iter().any(|other| other.value() == source.value()) {
            return Err(meta.error("this source is declared twice"));
        }
        sources.push(source);
        Ok(())
    });
    syn::parse::Parser::parse2(parser, arguments)?;
    if sources.is_empty() {
        let span = proc_macro2::Span::call_site();
        return Err(Error::new(span, "a processor needs a source: `#[sandbar::processor(source = \"name\")]`"));
    }
    Ok(sources)
}

/// What the fields so far have declared.
#[derive(Default)]
struct Seen {
    names: Vec<(&'static str, String)>,
    migrates: bool,
}

/// `migrate(from = 1, old = Type, with = function)`.
struct Migration {
    from: LitInt,
    old: Type,
    with: Path,
}

impl Migration {
    fn parse(meta: &ParseNestedMeta<'_>) -> Result<Self> {
        let (mut from, mut old, mut with) = (None, None, None);
        meta.parse_nested_meta(|meta| {
            if meta.path.is_ident("from") {
                from = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("old") {
                old = Some(meta.value()?.parse()?);
            } else if meta.path.is_ident("with") {
                with = Some(meta.value()?.parse()?);
            } else {
                return Err(meta.error(MIGRATE));
            }
            Ok(())
        })?;
        match (from, old, with) {
            (Some(from), Some(old), Some(with)) => Ok(Self { from, old, with }),
            _ => Err(meta.error(MIGRATE)),
        }
    }
}

const MIGRATE: &str = "expected `migrate(from = 1, old = Type, with = function)`";

/// Refuses migrations that no deploy would ask for.
fn check_migrations(migrations: &[Migration], version: u32) -> Result<()> {
    let mut known = Vec::new();
    for Migration { from, .. } in migrations {
        let number: u32 = from.base10_parse()?;
        if number >= version {
            let message = format!("a migration comes from a version below that of the store, which is {version}");
            return Err(Error::new(from.span(), message));
        }
        if known.contains(&number) {
            return Err(Error::new(from.span(), format!("the migration from version {number} is declared twice")));
        }
        known.push(number);
    }
    Ok(())
}

/// Takes the SDK's attributes off a field and says how it is made.
fn make_field(field: &mut Field, seen: &mut Seen) -> Result<TokenStream> {
    let Some(ident) = field.ident.clone() else {
        return Err(Error::new(field.span(), "a processor needs named fields"));
    };
    let is_ours = |attribute: &Attribute| attribute.path().is_ident("store") || attribute.path().is_ident("sink");
    let ours: Vec<Attribute> = field.attrs.iter().filter(|attribute| is_ours(attribute)).cloned().collect();
    field.attrs.retain(|attribute| !is_ours(attribute));
    let Some(attribute) = ours.first() else {
        return Ok(quote!(#ident: ::core::default::Default::default()));
    };
    if let Some(second) = ours.get(1) {
        return Err(Error::new(second.span(), "a field is one store or one sink"));
    }

    let kind = if attribute.path().is_ident("store") { "store" } else { "sink" };
    let mut name = LitStr::new(&ident.to_string(), ident.span());
    let mut calls = Punctuated::<TokenStream, syn::Token![.]>::new();
    let (mut version, mut migrations) = (1_u32, Vec::new());
    if !matches!(attribute.meta, syn::Meta::Path(_)) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                name = meta.value()?.parse()?;
            } else if kind == "store" && meta.path.is_ident("prefetch") {
                calls.push(quote!(prefetch_keys()));
            } else if kind == "store" && meta.path.is_ident("version") {
                let number: LitInt = meta.value()?.parse()?;
                version = number.base10_parse()?;
                calls.push(quote!(version(#version)));
            } else if kind == "store" && meta.path.is_ident("migrate") {
                migrations.push(Migration::parse(&meta)?);
            } else if kind == "store" {
                return Err(meta.error("expected `prefetch`, `version = …`, `migrate(…)` or `name = \"…\"`"));
            } else {
                return Err(meta.error("expected `name = \"…\"`"));
            }
            Ok(())
        })?;
    }
    check_migrations(&migrations, version)?;
    if seen.names.contains(&(kind, name.value())) {
        return Err(Error::new(name.span(), format!("the {kind} {} is declared twice", name.value())));
    }
    seen.names.push((kind, name.value()));
    seen.migrates |= !migrations.is_empty();
    calls.push(quote!(build()));
    let method = syn::Ident::new(kind, attribute.span());
    if migrations.is_empty() {
        return Ok(quote!(#ident: declaration.#method(#name).#calls));
    }
    let of_field = &field.ty;
    let migrates = migrations
        .iter()
        .map(|Migration { from, old, with }| quote!(declaration.migrates::<#old, _, _>(&__store, #from, #with);));
    Ok(quote!(#ident: {
        let __store: #of_field = declaration.#method(#name).#calls;
        #(#migrates)*
        __store
    }))
}

#[cfg(test)]
mod tests;
