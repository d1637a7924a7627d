//! Callbacks that are `async fn`.

use quote::format_ident;
use syn::{
    Error, FnArg, GenericArgument, ImplItemFn, PathArguments, PathSegment, Receiver, ReceiverKind, Signature, Type,
};

use crate::callbacks::ASYNC;

/// What to say of an `async fn` that cannot be one.
pub(crate) fn not_async(name: &str) -> String {
    let names = ASYNC.map(|(name, ..)| name).join(", ");
    let instead = match name {
        "handle_info" => "; take a ticket with `Host::ticket` and answer `InfoAction::Later`",
        _ => "; start a task of your own from it",
    };
    format!("`{name}` cannot be `async`{instead}. Those that can are {names}")
}

/// Checks the arguments, and gives the function the name that its future has in the trait.
pub(crate) fn rewrite(function: &mut ImplItemFn, has_async: bool) -> Result<(), Error> {
    let signature = &function.sig;
    let name = signature.ident.to_string();
    let Some((_, request, answer)) = ASYNC.iter().find(|(known, ..)| *known == name) else {
        return Err(Error::new_spanned(signature.asyncness, not_async(&name)));
    };
    if !has_async {
        return Err(Error::new_spanned(
            signature.asyncness,
            format!(
                "`async fn {name}` needs the feature `async` of plugin-api: \
                 in Cargo.toml, write `plugin-api = {{ …, features = [\"async\"] }}`"
            ),
        ));
    }
    if let Some((at, what)) = mistake(signature) {
        let argument = name.trim_start_matches("handle_");
        return Err(Error::new_spanned(
            at,
            format!(
                "{what}: it outlives the call. Write `async fn {name}(self: Arc<Self>, \
                 connection: Lent<Self::Connection>, {argument}: owned::{request}) -> Result<{answer}, Error>`"
            ),
        ));
    }
    function.sig.ident = format_ident!("{name}_async", span = function.sig.ident.span());
    Ok(())
}

/// The first argument that an asynchronous callback cannot have, as far as its text tells; rustc finds the others.
fn mistake(signature: &Signature) -> Option<(&dyn quote::ToTokens, &'static str)> {
    let mut inputs = signature.inputs.iter();
    match inputs.next() {
        Some(FnArg::Receiver(receiver)) if is_arc(receiver) => {}
        Some(first) => return Some((first, "an asynchronous callback shares the handler")),
        None => return Some((&signature.ident, "an asynchronous callback has three arguments")),
    }
    let (Some(FnArg::Typed(connection)), Some(FnArg::Typed(request)), None) =
        (inputs.next(), inputs.next(), inputs.next())
    else {
        return Some((&signature.inputs, "an asynchronous callback has three arguments"));
    };
    if last(&connection.ty).is_none_or(|last| last.ident != "Lent") {
        return Some((connection, "an asynchronous callback has the state lent to it"));
    }
    if last(&request.ty).is_none_or(borrows) {
        return Some((request, "an asynchronous callback owns its request"));
    }
    None
}

/// `self: Arc<Self>`.
fn is_arc(receiver: &Receiver) -> bool {
    matches!(&receiver.kind, ReceiverKind::Typed(_, of) if last(of).is_some_and(|last| last.ident == "Arc"))
}

/// The last part of a type's name.
fn last(of: &Type) -> Option<&PathSegment> {
    match of {
        Type::Path(path) => path.path.segments.last(),
        _ => None,
    }
}

/// Whether there is a lifetime, as in `Connect<'_>`.
fn borrows(segment: &PathSegment) -> bool {
    match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => {
            arguments.args.iter().any(|argument| matches!(argument, GenericArgument::Lifetime(_)))
        }
        _ => false,
    }
}
