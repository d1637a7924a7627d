//! Messages of plugins for a connection, `handle_info`: what they have the host do.

use plugin_api::Callback;
use plugin_api::reading::{Answer, fold_info, is_later};

use super::chain::{Chain, implementing_from};
use super::cursor::{Cursor, SoFar};
use super::handlers::Handlers;
use super::outcome::{InfoAction, InfoOutcome};
use super::request::InfoRequest;
use super::tickets::Answered;

impl Chain {
    /// Hands a message to one plugin, or to all that implement `handle_info`.
    pub fn info(
        &self,
        handlers: &mut Handlers,
        who: &str,
        plugin: Option<usize>,
        request: &InfoRequest<'_>,
    ) -> InfoOutcome {
        info_from(handlers, 0, who, plugin, request, Vec::new())
    }

    /// Goes on after [`InfoOutcome::Deferred`], with the same request.
    pub fn resume_info(
        &self,
        handlers: &mut Handlers,
        who: &str,
        plugin: Option<usize>,
        request: &InfoRequest<'_>,
        cursor: Cursor,
        answered: Answered,
    ) -> InfoOutcome {
        let taken = handlers.take_back(&cursor, Callback::Info, who, answered);
        let may_ask_again = taken.is_err() && handlers.may_ask_again(&cursor, Callback::Info, None);
        let Cursor { index, asked, so_far: SoFar::Info(mut actions), .. } = cursor else {
            return InfoOutcome::Failed;
        };
        let Ok((verdict, answer)) = taken else {
            if may_ask_again {
                return info_from(handlers, index, who, plugin, request, actions);
            }
            return InfoOutcome::Failed;
        };
        let end = fold_info(&*asked, who, verdict, &answer, &mut actions);
        end.unwrap_or_else(|| info_from(handlers, index + 1, who, plugin, request, actions))
    }
}

fn info_from(
    handlers: &mut Handlers,
    from: usize,
    who: &str,
    plugin: Option<usize>,
    request: &InfoRequest<'_>,
    mut actions: Vec<InfoAction>,
) -> InfoOutcome {
    let raw = request.raw();
    for index in implementing_from(handlers, Callback::Info, from) {
        if plugin.is_some_and(|plugin| plugin != index) {
            continue;
        }
        let mut answer = Answer::default();
        let Ok(verdict) = handlers.ask(index, who, &mut answer, &raw) else {
            return InfoOutcome::Failed;
        };
        if is_later(verdict, &answer) {
            return InfoOutcome::Deferred(Cursor::new(handlers, index, answer.ticket, SoFar::Info(actions)));
        }
        let plugin = &*handlers.plugins().list[index];
        if let Some(end) = fold_info(plugin, who, verdict, &answer, &mut actions) {
            return end;
        }
    }
    InfoOutcome::Actions(actions)
}
