//! Configurations with a type: the type itself, and a handler that takes one.

use proc_macro2::{TokenStream, TokenTree};
use quote::{format_ident, quote};
use syn::{Attribute, Data, DeriveInput, Error, Fields, FnArg, ImplItem, ImplItemFn, Type, parse_quote};

/// `#[config]` in front of a type.
pub(crate) fn expand(arguments: &TokenStream, mut item: DeriveInput) -> Result<TokenStream, Error> {
    if !arguments.is_empty() {
        return Err(Error::new_spanned(arguments, "#[config] takes no arguments"));
    }
    let fields = match &mut item.data {
        Data::Struct(data) => data.fields.iter_mut().collect::<Vec<_>>(),
        Data::Enum(data) => data.variants.iter_mut().flat_map(|variant| &mut variant.fields).collect(),
        Data::Union(_) => {
            return Err(Error::new_spanned(&item.ident, "a configuration is a struct or an enum"));
        }
    };
    let mut is_flat = true;
    for field in fields.into_iter().filter(|field| says(&field.attrs, &["flatten"])) {
        // serde's own way forgets where in it a mistake is.
        field.attrs.push(parse_quote!(#[serde(deserialize_with = "::plugin_api::config::flattened")]));
        is_flat = false;
    }
    // What serde cannot have together with it.
    let is_said = says(&item.attrs, &["deny_unknown_fields", "transparent", "from", "try_from", "remote"]);
    let strict = if is_said { quote!() } else { quote!(, deny_unknown_fields) };
    let has_names = matches!(&item.data, Data::Struct(data) if matches!(data.fields, Fields::Named(_)));
    let flat = (is_flat && has_names && !is_said).then(|| {
        let (name, (generics, types, bounds)) = (&item.ident, item.generics.split_for_impl());
        quote!(impl #generics ::plugin_api::config::Flat for #name #types #bounds {})
    });
    Ok(quote! {
        #[derive(::plugin_api::config::serde::Deserialize, ::plugin_api::config::schemars::JsonSchema)]
        #[serde(crate = "::plugin_api::config::serde" #strict)]
        #[schemars(crate = "::plugin_api::config::schemars")]
        #item
        #flat
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
