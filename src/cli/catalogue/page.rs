//! stub
use super::model::Model;
pub(super) fn html(_model: &Model) -> String {
    String::new()
}
