#!/bin/sh
# Starts the server for one model, told by MODEL_NAME and MODEL_BASE_PATH; words after the image's name
# are added, and the last of two equal flags counts. The program is looked for on the PATH, and takes
# this shell's place, so that it hears the container's signals itself.
exec tensorflow_model_server \
  --port=8500 \
  --rest_api_port=8501 \
  --model_name="${MODEL_NAME:-model}" \
  --model_base_path="${MODEL_BASE_PATH:-/models}/${MODEL_NAME:-model}" \
  "$@"
