//! Configurations with a type: the type itself, and a handler that takes one.

use proc_macro2::{TokenStream, TokenTree};
use quote::{format_ident, quote};
use syn::{Attribute, Data, DeriveInput, Error, FnArg, ImplItem, ImplItemFn, Type, parse_quote};

/// `#[config]` in front of a type.
pub(crate) fn expand(arguments: &TokenStream, item: &DeriveInput) -> Result<TokenStream, Error> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(arguments, "#[config] takes no arguments"));
    }
    let fields = match &item.data {
        Data::Struct(data) => data.fields.iter().collect::<Vec<_>>(),
        Data::Enum(data) => data.variants.iter().flat_map(|variant| &variant.fields).collect(),
        Data::Union(_) => {
            return Err(Error::new_spanned(&item.ident, "a configuration is a struct or an enum"));
        }
    };
    // What serde cannot have together with it.
    let is_open = fields.iter().any(|field| says(&field.attrs, &["flatten"]));
    let is_said = says(&item.attrs, &["deny_unknown_fields", "transparent", "from", "try_from", "remote"]);
    let strict = if is_open || is_said { quote!() } else { quote!(, deny_unknown_fields) };
    Ok(quote! {
        #[derive(::plugin_api::config::serde::Deserialize, ::plugin_api::config::schemars::JsonSchema)]
        #[serde(crate = "::plugin_api::config::serde" #strict)]
        #[schemars(crate = "::plugin_api::config::schemars")]
        #item
    })
}

/// Whether one of serde's attributes has one of these words.
fn says(attributes: &[Attribute], words: &[&str]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("serde")).any(|attribute| {
        let list = attribute.meta.require_list().map(|list| list.tokens.clone()).unwrap_or_default();
        list.into_iter().any(|token| match token {
            TokenTree::Ident(ident) => words.iter().any(|word| ident == word),
            _ => false,
        })
    })
}

/// Has a function whose last argument is a configuration with a type get it from the text. Its type, if it has one.
pub(crate) fn rewrite(function: &mut ImplItemFn, has_config: bool) -> Result<Option<Type>, Error> {
    let name = function.sig.ident.to_string();
    // `init(host, config)` and `handle_config(&self, config)`: the second of two.
    let 2 = function.sig.inputs.len() else { return Ok(None) };
    let Some(FnArg::Typed(argument)) = function.sig.inputs.last_mut() else { return Ok(None) };
    if is_text(&argument.ty) {
        return Ok(None);
    }
    if let Type::Reference(reference) = &*argument.ty {
        let instead = format!("`{name}` gets its configuration as `&str`, or owns it: `config: Config`");
        return Err(Error::new_spanned(reference, instead));
    }
    if !has_config {
        return Err(Error::new_spanned(
            &argument.ty,
            format!(
                "a configuration with a type needs the feature `config` of plugin-api: in Cargo.toml, write \
                 `plugin-api = {{ …, features = [\"config\"] }}`; without it, `{name}` gets the text: `config: &str`"
            ),
        ));
    }
    let (text, pattern, its_type) = (format_ident!("__config"), argument.pat.clone(), argument.ty.clone());
    *argument.pat = parse_quote!(#text);
    *argument.ty = parse_quote!(&str);
    function.block.stmts.insert(
        0,
        parse_quote! {
            let #pattern: #its_type = ::plugin_api::config::read::<#its_type>(#text)?;
        },
    );
    Ok(Some(*its_type))
}

fn is_text(of: &Type) -> bool {
    match of {
        Type::Reference(reference) => matches!(&*reference.elem, Type::Path(path) if path.path.is_ident("str")),
        _ => false,
    }
}

/// What the host asks before there is an instance.
pub(crate) fn questions(its_type: &Type) -> [ImplItem; 2] {
    let check = parse_quote! {
        fn check_config(config: &str) -> ::core::result::Result<(), ::plugin_api::Error> {
            ::plugin_api::config::read::<#its_type>(config)?;
            ::core::result::Result::Ok(())
        }
    };
    let schema = parse_quote! {
        fn config_schema() -> ::core::option::Option<::std::string::String> {
            ::core::option::Option::Some(::plugin_api::config::schema::<#its_type>())
        }
    };
    [check, schema]
}
