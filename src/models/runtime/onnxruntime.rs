//! Networks on ONNX Runtime: CPU, CUDA, TensorRT.

use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use ndarray::Array2;
use ort::environment::Environment;
use ort::ep::{CUDA, TensorRT};
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{TensorRef, ValueType};

use super::{Device, Lane, Settings, admits, embeddings, ffi, is_embedding, required_library};
use crate::error::{Error, Result};

/// `ort` holds that running one session from several threads is unsound: one lane, which uses all threads.
struct SessionLane {
    session: Session,
    output: usize,
    settings: Settings,
}

impl Lane for SessionLane {
    fn run(&mut self, items: &[f32]) -> Result<Array2<f32>> {
        let failed = |e: ort::Error| Error::Runtime(format!("the network failed: {e}"));
        let input = TensorRef::from_array_view((self.settings.input_shape(), items)).map_err(failed)?;
        let outputs = self.session.run(ort::inputs![input]).map_err(failed)?;
        let (_, values) = outputs[self.output].try_extract_tensor::<f32>().map_err(failed)?;
        embeddings(values, &self.settings)
    }
}

pub(super) fn load(onnx: &Path, device: Device, settings: &Settings) -> Result<(String, Vec<Box<dyn Lane>>)> {
    let environment = environment(device)?;
    let failed = |what: &str, error: &dyn fmt::Display| Error::Runtime(format!("device {device} {what}: {error}"));
    let builder = Session::builder(environment).map_err(|e| failed("cannot be used", &e))?;
    let mut builder = configure(builder, device, settings).map_err(|e| failed("cannot be used", &e))?;
    let session = builder.commit_from_file(onnx).map_err(|e| failed(&format!("cannot load {}", onnx.display()), &e))?;
    let ran = ffi::assigned_providers(&session).map_err(|e| failed("does not say what it runs", &e))?;
    let names: Vec<String> = ran.iter().map(|name| name.trim_end_matches("ExecutionProvider").to_lowercase()).collect();
    if !names.contains(&device.to_string()) {
        return Err(failed("was asked for, but the network would run on", &names.join("+")));
    }
    let output = check_shapes(&session, onnx, settings)?;
    Ok((names.join("+"), vec![Box::new(SessionLane { session, output, settings: settings.clone() })]))
}

fn configure(builder: SessionBuilder, device: Device, settings: &Settings) -> ort::Result<SessionBuilder> {
    let builder = builder
        .with_config_entry("session.record_ep_graph_assignment_info", "1")?
        // Every run has the same shape, so that providers may plan for it.
        .with_dimension_override("batch", settings.batch as i64)?
        .with_intra_threads(settings.threads)?
        // Threads that spin while they wait take cores from the decoders.
        .with_intra_op_spinning(false)?;
    Ok(match device {
        Device::Cuda => builder.with_execution_providers([CUDA::default().build().error_on_failure()])?,
        Device::TensorRt => builder.with_execution_providers([
            TensorRT::default().build().error_on_failure(),
            CUDA::default().build().error_on_failure(),
        ])?,
        Device::Auto | Device::Native | Device::Cpu | Device::OpenVino => builder,
    })
}

/// Compares input and output with the card; returns the output's index.
fn check_shapes(session: &Session, onnx: &Path, settings: &Settings) -> Result<usize> {
    let wrong = |message: String| Error::Weights { path: onnx.to_path_buf(), message };
    let [input] = session.inputs() else {
        return Err(wrong(format!("a network needs exactly one input, this one has {}", session.inputs().len())));
    };
    match input.dtype() {
        ValueType::Tensor { shape, .. } if admits(shape, &settings.input_shape()) => {}
        other => {
            let wanted = settings.input_shape();
            return Err(wrong(format!("its input `{}` is {other}, the card states f32 {wanted:?}", input.name())));
        }
    }
    let outputs = session.outputs();
    let index = match &settings.output {
        None if outputs.len() == 1 => 0,
        None => {
            let names: Vec<_> = outputs.iter().map(|output| output.name()).collect();
            return Err(wrong(format!(
                "it has several outputs, {}: name one in its card, [output] name",
                names.join(", ")
            )));
        }
        Some(name) => (outputs.iter().position(|output| output.name() == name))
            .ok_or_else(|| wrong(format!("it has no output `{name}`")))?,
    };
    match outputs[index].dtype() {
        ValueType::Tensor { shape, .. } if is_embedding(shape, settings.dim) => Ok(index),
        other => {
            let name = outputs[index].name();
            Err(wrong(format!("its output `{name}` is {other}, the card states f32 [batch, {}]", settings.dim)))
        }
    }
}

/// The process's one environment. The first call decides which library is loaded.
fn environment(device: Device) -> Result<&'static Environment> {
    static ENVIRONMENT: OnceLock<Result<Environment, String>> = OnceLock::new();
    let path = match device {
        Device::Cuda | Device::TensorRt => {
            required_library("onnxruntime-gpu", "libonnxruntime.so", "run `make setup DEVICE=cuda`")?
        }
        _ => required_library("onnxruntime", "libonnxruntime.so", "run `make setup`")?,
    };
    let made = ENVIRONMENT.get_or_init(|| {
        let builder = ort::init_from(&path).map_err(|e| format!("{} cannot be loaded: {e}", path.display()))?;
        let environment = builder.with_name("kinoprobe").with_telemetry(false).build().map_err(|e| e.to_string())?;
        environment.set_log_level(ort::logging::LogLevel::Error);
        Ok(environment)
    });
    made.as_ref().map_err(|message| Error::Runtime(message.clone()))
}
