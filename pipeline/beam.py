"""Apache Beam on this machine."""

# Beam's direct runner by its full name: 2.77 would try Prism, which it has to download; 2.61 does not know the short
# name. The image is never used; naming one keeps TFX from building a source distribution of itself for every executor.
LOCAL_BEAM_ARGS = (
    "--runner=apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner",
    "--sdk_container_image=unused",
)
