//! Lists of tensors, which recurrent networks and maps collect their results in.
//!
//! A list is one tensor in ONNX: elements have one shape, and the first axis counts them. Reading is
//! picking a row, writing is replacing one. Invariant: a list that is made for elements of unknown
//! sizes has no tensor until something says what they are; until then nothing can be read of it. What
//! a loop's body alone can say is said in its first round, by the tensor growing from nothing.

use vesta_model::DType;

use super::gathering::guarded_wide;
use super::guards::{choose, facts, joined, part, sizes, test, unless, whole};
use super::{NUMBERS, expect_dtype};
use crate::call::Call;
use crate::graph::{Attr, Graph};
use crate::refusal::{Reason, refuse};
use crate::registry::{Family, Outcome};
use crate::value::{Dim, Dims, Element, Grown, List, Value, ValueId, known_dims};

pub(super) const FAMILY: Family = &[
    ("EmptyTensorList", empty),
    ("TensorListFromTensor", from_tensor),
    ("TensorListGather", gather),
    ("TensorListGetItem", get_item),
    ("TensorListLength", length),
    ("TensorListPushBack", push_back),
    ("TensorListReserve", reserve),
    ("TensorListSetItem", set_item),
    ("TensorListStack", stack),
];

/// TensorFlow's word for a list whose elements have no size since none was put in.
const NOTHING_SET: &str = "Tried to stack list which only contains uninitialized tensors and has a \
    non-fully-defined element shape: <unknown>";

/// Whether a value is a list without a tensor.
pub(crate) fn is_unmade(value: &Value) -> bool {
    value.list.as_ref().is_some_and(|list| list.unmade.is_some())
}

pub(super) fn expect_element(dtype: DType) -> Result<(), Reason> {
    if dtype == DType::Bool { Ok(()) } else { expect_dtype(dtype, NUMBERS) }
}

/// The list that the ONNX value `name` holds.
pub(super) fn listed(g: &mut Graph, name: String) -> ValueId {
    growing(g, name, None)
}

/// The list that the ONNX value `name` holds, which may have no rows yet.
pub(super) fn growing(g: &mut Graph, name: String, grown: Option<Grown>) -> ValueId {
    let (dtype, dims) = g.facts.get(&name).cloned().unwrap_or((DType::Invalid, None));
    let elements = dims.as_ref().map(|dims| dims.get(1..).unwrap_or_default().to_vec());
    let list = List { dtype, dims: elements, unmade: None, grown };
    g.add(Value { plain: Some(name), list: Some(list), ..Value::new(DType::Variant, dims) })
}

pub(super) fn list_of(g: &Graph, id: ValueId) -> Result<List, Reason> {
    match &g.get(id).list {
        Some(list) => Ok(list.clone()),
        None => refuse("it takes what is no list"),
    }
}

/// A list that has its tensor.
pub(super) fn made_list(g: &mut Graph, id: ValueId) -> Result<(String, List, Vec<Dim>), Reason> {
    let list = list_of(g, id)?;
    if list.unmade.is_some() {
        return refuse("nothing says how large the elements of its list are");
    }
    let dims = g.dims(id)?;
    Ok((g.plain(id), list, dims))
}

/// What a shape of elements says; `None` of a size or rank that is left open.
fn element_dims(g: &Graph, id: ValueId) -> Option<Vec<Option<Dim>>> {
    let value = g.get(id);
    let elements = value.elements.clone()?;
    if value.rank() != Some(1) {
        return None;
    }
    let dim = |element: Element| match element {
        Element::Known(n) => usize::try_from(n).ok().map(Dim::Known),
        Element::Size(symbol) => Some(Dim::Symbol(symbol)),
        Element::Unknown => None,
    };
    Some(elements.into_iter().map(dim).collect())
}

/// A size as an int64 vector of one, where it can be read of a tensor.
fn size_of(g: &mut Graph, dim: Dim) -> Option<String> {
    match dim {
        Dim::Known(n) => Some(g.ints(&[n as i64])),
        Dim::Symbol(symbol) => {
            let (id, axis) = g.sized_by(symbol)?;
            let name = g.plain(id);
            Some(sizes(g, &name, axis, Some(axis + 1)))
        }
    }
}

/// Sizes as an int64 vector, where all can be read.
fn shape_of(g: &mut Graph, dims: &[Dim]) -> Option<String> {
    let pieces: Vec<String> = dims.iter().map(|&dim| size_of(g, dim)).collect::<Option<_>>()?;
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    Some(match pieces[..] {
        [one] => one.to_owned(),
        _ => joined(g, &pieces),
    })
}

/// A list of `count` (an int64 vector of one) elements of zeros. `None` is a size that the first
/// element brings.
fn zeros(
    g: &mut Graph,
    dtype: DType,
    count: &str,
    number: Dim,
    dims: &[Option<Dim>],
) -> Result<ValueId, Reason> {
    let is_grown = dims.contains(&None);
    let first = if is_grown { g.ints(&[0]) } else { count.to_owned() };
    let (mut pieces, mut all) = (vec![first], vec![if is_grown { g.symbol() } else { number }]);
    for &dim in dims {
        let Some(dim) = dim else {
            pieces.push(g.ints(&[0]));
            all.push(g.symbol());
            continue;
        };
        let Some(size) = size_of(g, dim) else {
            return refuse("a size of its list's elements is nowhere to be read");
        };
        pieces.push(size);
        all.push(dim);
    }
    let zero = g.scalar(dtype, 0.0)?;
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let shape = match pieces[..] {
        [one] => one.to_owned(),
        _ => joined(g, &pieces),
    };
    let name = g.emit("Expand", &[&zero, &shape], vec![], dtype, Some(all));
    Ok(growing(g, name, is_grown.then(|| Grown { count: count.to_owned(), number })))
}

/// Makes the tensor of a list, for elements of these sizes; `None` is one that the first element brings.
pub(crate) fn make(g: &mut Graph, id: ValueId, dims: &[Option<Dim>]) -> Result<ValueId, Reason> {
    let list = list_of(g, id)?;
    let Some(count) = list.unmade else { return Ok(id) };
    let number = g.get(id).dims.as_ref().and_then(|dims| dims.first().copied());
    let number = number.unwrap_or_else(|| g.symbol());
    zeros(g, list.dtype, &count, number, dims)
}

/// The tensor of a list that may have no rows yet, with `count` of them, of these sizes (an int64 vector, and
/// what is known of them), when it has none.
fn grow(
    g: &mut Graph,
    name: &str,
    count: &str,
    dtype: DType,
    (of_item, known): (&str, &[Dim]),
) -> Result<String, Reason> {
    let rank = known.len();
    let numbers = Some(vec![Dim::Known(rank + 1)]);
    let wanted = joined(g, &[count, of_item]);
    let own = sizes(g, name, 0, Some(rank + 1));
    let missing = whole(g, "Sub", &wanted, &own, &numbers);
    let rows = part(g, &own, 0, 1);
    let none = g.ints(&[0]);
    let is_new = test(g, "Equal", &rows, &none, &Some(vec![Dim::Known(1)]));
    let missing = choose(g, [&is_new, &missing, &none], &numbers);
    let before = g.ints(&vec![0; rank + 1]);
    let pads = joined(g, &[&before, &missing]);
    let zero = g.scalar(dtype, 0.0)?;
    let mut dims = vec![g.symbol()];
    dims.extend(known);
    let mode = vec![("mode", Attr::Text("constant"))];
    Ok(g.emit("Pad", &[name, &pads, &zero], mode, dtype, Some(dims)))
}

/// The tensor of a list, with rows of zeros behind its own up to the index `at`.
fn reaching(
    g: &mut Graph,
    name: &str,
    at: &str,
    list: &List,
    dims: &mut [Dim],
) -> Result<String, Reason> {
    let one = Some(vec![Dim::Known(1)]);
    let (own, next) = (sizes(g, name, 0, Some(1)), g.ints(&[1]));
    let reached = whole(g, "Add", at, &next, &one);
    let rows = whole(g, "Max", &own, &reached, &one);
    let missing = whole(g, "Sub", &rows, &own, &one);
    let rest = dims.len() - 1;
    let (before, after) = (g.ints(&vec![0; dims.len()]), g.ints(&vec![0; rest]));
    let pads = match rest {
        0 => joined(g, &[&before, &missing]),
        _ => joined(g, &[&before, &missing, &after]),
    };
    let zero = g.scalar(list.dtype, 0.0)?;
    dims[0] = g.symbol();
    let mode = vec![("mode", Attr::Text("constant"))];
    Ok(g.emit("Pad", &[name, &pads, &zero], mode, list.dtype, Some(dims.to_vec())))
}

fn new_list(g: &mut Graph, c: &Call<'_>, shape: ValueId, count: String, number: Dim) -> Outcome {
    let dtype = c.dtype("element_dtype", DType::Invalid)?;
    expect_element(dtype)?;
    if let Some(dims) = element_dims(g, shape).filter(|dims| dims.iter().all(Option::is_some)) {
        return Ok(vec![zeros(g, dtype, &count, number, &dims)?]);
    }
    let list = List { dtype, dims: None, unmade: Some(count), grown: None };
    let value = Value { list: Some(list), ..Value::new(DType::Variant, Some(vec![number])) };
    Ok(vec![g.add(value)])
}

fn reserve(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (shape, count) = (c.input(0)?, c.input(1)?);
    let number = match g.get(count).elements.as_deref() {
        Some([Element::Known(n)]) => match usize::try_from(*n) {
            Ok(n) => Dim::Known(n),
            Err(_) => return refuse("a negative number of elements"),
        },
        Some([Element::Size(symbol)]) => Dim::Symbol(*symbol),
        _ => g.symbol(),
    };
    let count = match number {
        Dim::Known(n) => g.ints(&[n as i64]),
        Dim::Symbol(_) => {
            let wide = g.wide(count)?;
            g.reshape(&wide, &[1], Some(vec![Dim::Known(1)]))
        }
    };
    new_list(g, c, shape, count, number)
}

fn empty(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let shape = c.input(0)?;
    let most = g.constant_int(c.input(1)?, "most elements")?;
    if most != -1 {
        return refuse("its list has a bound");
    }
    let count = g.ints(&[0]);
    new_list(g, c, shape, count, Dim::Known(0))
}

fn from_tensor(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    expect_element(g.get(id).dtype)?;
    if g.rank(id)? == 0 {
        return refuse("a list out of a scalar");
    }
    let name = g.plain(id);
    Ok(vec![listed(g, name)])
}

/// An index as an int64 vector of one.
pub(super) fn index(g: &mut Graph, id: ValueId) -> Result<String, Reason> {
    let wide = guarded_wide(g, id)?;
    Ok(g.reshape(&wide, &[1], Some(vec![Dim::Known(1)])))
}

fn get_item(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (name, list, dims) = made_list(g, c.input(0)?)?;
    let at = guarded_wide(g, c.input(1)?)?;
    let attributes = vec![("axis", Attr::Int(0))];
    let picked = Some(dims.get(1..).unwrap_or_default().to_vec());
    let name = g.emit("Gather", &[&name, &at], attributes, list.dtype, picked);
    Ok(vec![g.result(name)])
}

fn gather(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (name, list, dims) = made_list(g, c.input(0)?)?;
    let indices = c.input(1)?;
    let mut picked = g.dims(indices)?;
    picked.extend(dims.get(1..).unwrap_or_default());
    let at = guarded_wide(g, indices)?;
    let attributes = vec![("axis", Attr::Int(0))];
    let name = g.emit("Gather", &[&name, &at], attributes, list.dtype, Some(picked));
    Ok(vec![g.result(name)])
}

/// A list for elements like `item`, whose sizes stay as they are where they are known.
pub(super) fn made_for(
    g: &mut Graph,
    id: ValueId,
    item: ValueId,
) -> Result<(String, List, Vec<Dim>), Reason> {
    let list = list_of(g, id)?;
    if g.get(item).dtype != list.dtype {
        return refuse(format!("a list of {} takes {}", list.dtype, g.get(item).dtype));
    }
    let dims = g.dims(item)?;
    let Some(count) = &list.unmade else {
        let (name, list, own) = made_list(g, id)?;
        let Some(grown) = &list.grown else { return Ok((name, list, own)) };
        let of_item = super::shaping::runtime_shape(g, item);
        let name = grow(g, &name, &grown.count, list.dtype, (&of_item, &dims))?;
        let all = facts(g, &name).1.unwrap_or_default();
        return Ok((name, list, all));
    };
    let shape = super::shaping::runtime_shape(g, item);
    let attributes = vec![("axis", Attr::Int(0))];
    let rank = Some(vec![Dim::Known(dims.len() + 1)]);
    let shape = g.emit("Concat", &[count, &shape], attributes, DType::I64, rank);
    let mut all = g.get(id).dims.clone().unwrap_or_default();
    all.extend(&dims);
    let zero = g.scalar(list.dtype, 0.0)?;
    let name = g.emit("Expand", &[&zero, &shape], vec![], list.dtype, Some(all));
    let made = listed(g, name);
    made_list(g, made)
}

fn lengthened(g: &mut Graph, item: ValueId, dtype: DType) -> Result<String, Reason> {
    let mut dims = g.dims(item)?;
    dims.insert(0, Dim::Known(1));
    let (name, axes) = (g.plain(item), g.ints(&[0]));
    Ok(g.emit("Unsqueeze", &[&name, &axes], vec![], dtype, Some(dims)))
}

fn set_item(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, item) = (c.input(0)?, c.input(2)?);
    let (mut name, mut list, mut dims) = made_for(g, id, item)?;
    let at = index(g, c.input(1)?)?;
    if c.flag("resize_if_index_out_of_bounds", false)? {
        name = reaching(g, &name, &at, &list, &mut dims)?;
        // As many as the tensor has rows.
        list.grown.iter_mut().for_each(|grown| grown.number = Dim::Known(0));
    }
    let rows = g.reshape(&at, &[1, 1], Some(vec![Dim::Known(1), Dim::Known(1)]));
    let item = lengthened(g, item, list.dtype)?;
    let attributes = vec![("reduction", Attr::Text("none"))];
    let name = g.emit("ScatterND", &[&name, &rows, &item], attributes, list.dtype, Some(dims));
    Ok(vec![growing(g, name, list.grown)])
}

fn push_back(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let (id, item) = (c.input(0)?, c.input(1)?);
    let (name, list, mut dims) = made_for(g, id, item)?;
    let item = lengthened(g, item, list.dtype)?;
    if let Some(number) = dims.first_mut() {
        *number = number.known().map_or_else(|| g.symbol(), |n| Dim::Known(n + 1));
    }
    let attributes = vec![("axis", Attr::Int(0))];
    let name = g.emit("Concat", &[&name, &item], attributes, list.dtype, Some(dims));
    Ok(vec![growing(g, name, list.grown)])
}

fn length(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let list = list_of(g, id)?;
    let one = Some(vec![Dim::Known(1)]);
    let count = match (list.unmade, list.grown) {
        (Some(count), _) => count,
        (None, grown) => {
            let name = g.plain(id);
            let rows = sizes(g, &name, 0, Some(1));
            match grown {
                Some(grown) => whole(g, "Max", &rows, &grown.count, &one),
                None => rows,
            }
        }
    };
    let wide = g.reshape(&count, &[], Some(vec![]));
    Ok(vec![g.narrowed(wide, DType::I32)])
}

/// The list's tensor. A number of elements that is stated is checked by TensorFlow, so it is stated
/// once more where it is not sure.
fn stack(g: &mut Graph, c: &Call<'_>) -> Outcome {
    let id = c.input(0)?;
    let said = element_dims(g, c.input(1)?);
    let list = list_of(g, id)?;
    let said: Option<Vec<Dim>> = said.and_then(|dims| dims.into_iter().collect());
    let id = match (&list.unmade, &said) {
        (Some(_), Some(dims)) => make(g, id, &dims.iter().copied().map(Some).collect::<Vec<_>>())?,
        _ => id,
    };
    let (mut name, list, mut dims) = made_list(g, id)?;
    if let Some(grown) = &list.grown {
        let said = said.filter(|said| said.len() + 1 == dims.len());
        name = match said.and_then(|said| Some((shape_of(g, &said)?, said))) {
            Some((shape, said)) => grow(g, &name, &grown.count, list.dtype, (&shape, &said))?,
            None => {
                let rows = sizes(g, &name, 0, Some(1));
                let none = g.ints(&[0]);
                let is_none = test(g, "Equal", &rows, &none, &Some(vec![Dim::Known(1)]));
                unless(g, &name, &is_none, NOTHING_SET)
            }
        };
        dims = facts(g, &name).1.unwrap_or(dims);
        if grown.number != Dim::Known(0) {
            dims[0] = grown.number;
        }
    }
    let wanted = usize::try_from(c.int("num_elements", -1)?).ok();
    let differs = |own: Dim, wanted: usize| own.known().is_some_and(|own| own != wanted);
    if wanted.is_some_and(|wanted| differs(dims[0], wanted)) {
        return refuse("its list has another number of elements than is stated");
    }
    let is_stated = wanted.is_some_and(|wanted| dims[0] != Dim::Known(wanted));
    if let (Some(wanted), true) = (wanted, is_stated) {
        dims[0] = Dim::Known(wanted);
        let mut sizes = vec![wanted as i64];
        sizes.extend(vec![0; dims.len() - 1]);
        let whole: Dims = Some(dims.clone());
        if known_dims(&whole).is_some_and(|dims| dims.contains(&0)) {
            return refuse("a list of nothing, of a stated length");
        }
        let stated = g.reshape(&name, &sizes, whole);
        return Ok(vec![g.result(stated)]);
    }
    let (dtype, dims) = (list.dtype, Some(dims));
    Ok(vec![g.add(Value { plain: Some(name), ..Value::new(dtype, dims) })])
}
