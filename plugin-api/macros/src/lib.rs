//! The `#[handler]` attribute of `plugin-api`. Use it through that crate, whose documentation describes it.

use proc_macro::TokenStream;
use quote::quote;
use syn::{Attribute, Error, Ident, ImplItem, ItemImpl, parse_quote};

/// The methods with a default, by the name of their `plugin_api::Callback`.
const CALLBACKS: [(&str, &str); 24] = [
    ("handle_connect", "Connect"),
    ("handle_auth", "Auth"),
    ("handle_publish", "Publish"),
    ("handle_subscribe", "Subscribe"),
    ("handle_unsubscribe", "Unsubscribe"),
    ("handle_puback", "Puback"),
    ("handle_info", "Info"),
    ("handle_disconnect", "Disconnect"),
    ("handle_session_expired", "SessionExpired"),
    ("stop", "Stop"),
    ("handle_connected", "Connected"),
    ("handle_deliver", "Deliver"),
    ("handle_message_dropped", "Dropped"),
    ("handle_message_acknowledged", "Acknowledged"),
    ("handle_message_expired", "Expired"),
    ("handle_retained", "Retained"),
    ("handle_event", "Event"),
    ("handle_config", "Config"),
    ("health", "Health"),
    ("handle_swapped", "Swapped"),
    ("export_state", "ExportState"),
    ("import_state", "ImportState"),
    ("export_plugin_state", "ExportPlugin"),
    ("import_plugin_state", "ImportPlugin"),
];

/// The methods that every handler has.
const REQUIRED: [&str; 2] = ["init", "new_connection"];

/// Stands in front of `impl Handler for …` and writes its `CALLBACKS`: the set of callbacks that the block implements.
///
/// The host never calls a callback that is left out. Rust itself cannot see whether a method with a default was
/// overridden, which is why this attribute exists.
///
/// ```
/// use plugin_api::{Callback, ConnectionInfo, Error, Handler, Host, Publish, PublishVerdict, handler};
///
/// struct Deaf;
///
/// #[handler]
/// impl Handler for Deaf {
///     type Connection = ();
///
///     fn init(_: Host, _: &str) -> Result<Self, Error> {
///         Ok(Deaf)
///     }
///     fn new_connection(&self, _: &ConnectionInfo<'_>) {}
///     fn handle_publish(&self, _: &mut (), _: &Publish<'_>) -> Result<PublishVerdict, Error> {
///         Ok(PublishVerdict::Handled)
///     }
/// }
///
/// assert!(Deaf::CALLBACKS.iter().eq([Callback::Publish]));
/// ```
///
/// A callback's name that does not exist is an error, as is a block without the attribute:
/// ```compile_fail
/// # use plugin_api::*;
/// # struct Deaf;
/// #[handler]
/// impl Handler for Deaf {
///     type Connection = ();
///     fn init(_: Host, _: &str) -> Result<Self, Error> { Ok(Deaf) }
///     fn new_connection(&self, _: &ConnectionInfo<'_>) {}
///     fn handle_published(&self) {} // no callback `handle_published`; did you mean `handle_publish`?
/// }
/// ```
/// ```compile_fail
/// # use plugin_api::*;
/// # struct Deaf;
/// impl Handler for Deaf { // missing: `CALLBACKS`
///     type Connection = ();
///     fn init(_: Host, _: &str) -> Result<Self, Error> { Ok(Deaf) }
///     fn new_connection(&self, _: &ConnectionInfo<'_>) {}
/// }
/// ```
#[proc_macro_attribute]
pub fn handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = syn::parse_macro_input!(arguments as proc_macro2::TokenStream);
    let block = syn::parse_macro_input!(item as ItemImpl);
    expand(&arguments, block).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(arguments: &proc_macro2::TokenStream, mut block: ItemImpl) -> Result<proc_macro2::TokenStream, Error> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(arguments, "#[handler] takes no arguments"));
    }
    if block.trait_.is_none() {
        return Err(Error::new_spanned(
            &block.self_ty,
            "#[handler] stands in front of `impl Handler for …`, not of an impl block without a trait",
        ));
    }
    let steps = block.items.iter().filter_map(step).collect::<Result<Vec<_>, _>>()?;
    block.items.push(parse_quote! {
        const CALLBACKS: ::plugin_api::Callbacks = {
            let callbacks = ::plugin_api::Callbacks::NONE;
            #(#steps)*
            callbacks
        };
    });
    Ok(quote!(#block))
}

/// The statement that adds an item of the block to the set, if it is a callback.
fn step(item: &ImplItem) -> Option<Result<proc_macro2::TokenStream, Error>> {
    match item {
        ImplItem::Fn(function) => callback(&function.attrs, &function.sig.ident),
        ImplItem::Const(constant) if constant.ident == "CALLBACKS" => {
            Some(Err(Error::new_spanned(&constant.ident, "#[handler] writes CALLBACKS itself: remove it")))
        }
        ImplItem::Macro(invocation) => Some(Err(Error::new_spanned(
            invocation,
            "#[handler] cannot see the callbacks that a macro makes: write them out in this block",
        ))),
        _ => None,
    }
}

fn callback(attributes: &[Attribute], name: &Ident) -> Option<Result<proc_macro2::TokenStream, Error>> {
    let text = name.to_string();
    if let Some((_, variant)) = CALLBACKS.iter().find(|(method, _)| *method == text) {
        let variant = Ident::new(variant, name.span());
        let conditions = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
        return Some(Ok(quote! {
            #(#conditions)*
            let callbacks = callbacks.with(::plugin_api::Callback::#variant);
        }));
    }
    // rustc reports other names well enough; it does not know which callbacks there are.
    (text.starts_with("handle") && !REQUIRED.contains(&text.as_str()))
        .then(|| Err(Error::new_spanned(name, unknown(&text))))
}

fn unknown(name: &str) -> String {
    let names = CALLBACKS.map(|(method, _)| method);
    let nearest = names.into_iter().min_by_key(|known| distance(known, name)).unwrap_or_default();
    let known = names.join(", ");
    format!("no callback `{name}`; did you mean `{nearest}`? The callbacks are {known}")
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(block: ItemImpl, expected: Result<&[&str], &str>) {
        let expanded = expand(&proc_macro2::TokenStream::new(), block);
        match (expanded, expected) {
            (Ok(tokens), Ok(variants)) => {
                let text = tokens.to_string();
                for (_, variant) in CALLBACKS {
                    let listed = text.contains(&format!("Callback :: {variant})"));
                    assert_eq!(listed, variants.contains(&variant), "{variant} in {text}");
                }
            }
            (Err(error), Err(part)) => {
                let text = error.to_string();
                assert!(text.contains(part), "{part:?} in {text:?}");
            }
            (got, expected) => panic!("got {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn callbacks_are_the_methods_of_the_block() {
        check(parse_quote! { impl Handler for A { fn init() {} } }, Ok(&[]));
        check(
            parse_quote! { impl Handler for A { fn handle_publish() {} fn stop() {} const X: u8 = 1; } },
            Ok(&["Publish", "Stop"]),
        );
    }

    #[test]
    fn a_condition_on_a_callback_is_a_condition_on_its_bit() {
        let block = parse_quote! { impl Handler for A { #[cfg(test)] fn handle_auth() {} } };
        let text = expand(&quote!(), block).expect("valid").to_string();
        assert_eq!(text.matches("cfg (test)").count(), 2, "{text}");
    }

    #[test]
    fn mistakes_are_explained() {
        check(parse_quote! { impl Handler for A { fn handle_pubish() {} } }, Err("did you mean `handle_publish`?"));
        check(parse_quote! { impl A { fn handle_publish() {} } }, Err("impl Handler for"));
        check(parse_quote! { impl Handler for A { const CALLBACKS: u8 = 0; } }, Err("writes CALLBACKS itself"));
        check(parse_quote! { impl Handler for A { callbacks!(); } }, Err("cannot see"));
        let arguments = expand(&quote!(publish), parse_quote! { impl Handler for A {} });
        assert!(arguments.is_err());
    }
}
