//! From the block as the author wrote it to one that implements the trait.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, Error, Ident, ImplItem, ImplItemFn, ItemImpl, Meta, Type, parse_quote};

use crate::callbacks::{REQUIRED, unknown, variant};
use crate::{config, futures};

/// What a block says about its callbacks: statements that each add one to a set.
#[derive(Default)]
struct Sets {
    callbacks: Vec<TokenStream>,
    blocking: Vec<TokenStream>,
    asynchronous: Vec<TokenStream>,
    /// The methods without a condition.
    names: Vec<String>,
    /// The type of the configuration.
    config: Option<Type>,
}

/// The features that plugin-api has.
#[derive(Clone, Copy)]
pub(crate) struct Features {
    pub(crate) asynchronous: bool,
    pub(crate) config: bool,
}

pub(crate) fn expand(arguments: &TokenStream, mut block: ItemImpl, has: Features) -> Result<TokenStream, Error> {
    let all_block = match arguments.to_string().as_str() {
        "" => false,
        "blocking" => true,
        _ => return Err(Error::new_spanned(arguments, "#[handler] takes no argument but `blocking`")),
    };
    if block.trait_.is_none() {
        return Err(Error::new_spanned(
            &block.self_ty,
            "#[handler] stands in front of `impl Handler for …`, not of an impl block without a trait",
        ));
    }
    let mut sets = Sets::default();
    for item in &mut block.items {
        match item {
            ImplItem::Fn(function) => {
                if ["init", "handle_config"].iter().any(|name| function.sig.ident == name) {
                    // What `init` takes is what there is at the start.
                    let its_type = config::rewrite(function, has.config)?;
                    let is_init = function.sig.ident == "init";
                    sets.config = if is_init { its_type.or(sets.config) } else { sets.config.or(its_type) };
                }
                sets.add(function, all_block, has.asynchronous)?;
            }
            ImplItem::Const(constant) => constant_is_free(&constant.ident, &constant.attrs)?,
            ImplItem::Macro(invocation) => {
                return Err(Error::new_spanned(
                    invocation,
                    "#[handler] cannot see the callbacks that a macro makes: write them out in this block",
                ));
            }
            _ => {}
        }
    }
    let Sets { callbacks, blocking, asynchronous, config, .. } = sets;
    block.items.extend(config.iter().flat_map(config::questions));
    block.items.push(set("CALLBACKS", &callbacks));
    if !blocking.is_empty() {
        block.items.push(set("BLOCKING", &blocking));
    }
    if !asynchronous.is_empty() {
        block.items.push(set("ASYNC", &asynchronous));
    }
    Ok(quote!(#block))
}

/// The constant that is the set of these callbacks.
fn set(name: &str, steps: &[TokenStream]) -> ImplItem {
    let name = Ident::new(name, proc_macro2::Span::call_site());
    parse_quote! {
        const #name: ::plugin_api::Callbacks = {
            let callbacks = ::plugin_api::Callbacks::NONE;
            #(#steps)*
            callbacks
        };
    }
}

fn constant_is_free(name: &Ident, attributes: &[Attribute]) -> Result<(), Error> {
    if name == "CALLBACKS" {
        return Err(Error::new_spanned(name, "#[handler] writes CALLBACKS itself: remove it"));
    }
    if name == "BLOCKING" {
        let instead =
            "#[handler] writes BLOCKING itself: put #[blocking] on the callbacks, or write #[handler(blocking)]";
        return Err(Error::new_spanned(name, instead));
    }
    no_blocking(attributes)
}

/// `#[blocking]` stands on callbacks only.
fn no_blocking(attributes: &[Attribute]) -> Result<(), Error> {
    match attributes.iter().find(|attribute| attribute.path().is_ident("blocking")) {
        Some(attribute) => Err(Error::new_spanned(attribute, "#[blocking] stands on a callback")),
        None => Ok(()),
    }
}

impl Sets {
    /// Takes one function of the block, and makes of it what the trait wants.
    fn add(&mut self, function: &mut ImplItemFn, all_block: bool, has_async: bool) -> Result<(), Error> {
        let name = function.sig.ident.clone();
        let text = name.to_string();
        let Some(variant) = variant(&text) else {
            // rustc reports other names well enough; it does not know which callbacks there are.
            if text.starts_with("handle") {
                return Err(Error::new_spanned(name, unknown(&text)));
            }
            if let Some(asyncness) = function.sig.asyncness.filter(|_| REQUIRED.contains(&text.as_str())) {
                return Err(Error::new_spanned(asyncness, futures::not_async(&text)));
            }
            return no_blocking(&function.attrs);
        };
        let variant = Ident::new(variant, name.span());
        let conditions = || function.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg"));
        if conditions().next().is_none() {
            // One of them may be about to get another name.
            if self.names.contains(&text) {
                return Err(Error::new_spanned(name, format!("`{text}` is there twice")));
            }
            self.names.push(text.clone());
        }
        let conditions = conditions();
        let step = quote! {
            #(#conditions)*
            let callbacks = callbacks.with(::plugin_api::Callback::#variant);
        };
        let blocks = take_blocking(&mut function.attrs)?;
        if function.sig.asyncness.is_some() {
            if let Some(attribute) = blocks {
                return Err(Error::new_spanned(
                    attribute,
                    "an `async fn` does not block, it waits: leave #[blocking] out, or `async`",
                ));
            }
            futures::rewrite(function, has_async)?;
            self.asynchronous.push(step.clone());
        } else if all_block || blocks.is_some() {
            if text == "handle_deliver" {
                let at = blocks.map_or_else(|| name.to_token_stream(), ToTokens::into_token_stream);
                return Err(Error::new_spanned(
                    at,
                    "`handle_deliver` cannot block: it is asked for each message to each client, and answers at once",
                ));
            }
            self.blocking.push(step.clone());
        }
        self.callbacks.push(step);
        Ok(())
    }
}

/// Removes `#[blocking]`, which only this macro knows.
fn take_blocking(attributes: &mut Vec<Attribute>) -> Result<Option<Attribute>, Error> {
    let Some(index) = attributes.iter().position(|attribute| attribute.path().is_ident("blocking")) else {
        return Ok(None);
    };
    let attribute = attributes.remove(index);
    match attribute.meta {
        Meta::Path(_) => no_blocking(attributes).map(|()| Some(attribute)),
        _ => Err(Error::new_spanned(attribute, "#[blocking] takes no arguments")),
    }
}
