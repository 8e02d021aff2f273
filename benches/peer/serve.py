"""Python peer of kinoprobe-serve: FastAPI, onnxruntime and OpenCV with the same models and the same batching.

`serve.py --models runs/posters --onnx NETWORK.onnx --port 18082 [--batch 4] [--delay 3]` implements POST /api/predict like
kinoprobe-serve. The transform is that of the card efficientnet_lite2.
"""
import argparse
import asyncio
import concurrent.futures
import contextlib
import json
import os
import pathlib

import cv2
import fastapi
import numpy as np
import onnxruntime
import uvicorn

parser = argparse.ArgumentParser()
parser.add_argument("--models", type=pathlib.Path, required=True)
parser.add_argument("--onnx", type=pathlib.Path, required=True)
parser.add_argument("--port", type=int, default=18082)
parser.add_argument("--batch", type=int, default=4)
parser.add_argument("--delay", type=float, default=3, help="milliseconds that an image waits for a batch to fill up")
arguments = parser.parse_args()

cv2.setNumThreads(1)
CORES = os.cpu_count() or 1
posters = json.loads((arguments.models / "posters.json").read_text())


def load_session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


network = load_session(arguments.onnx, CORES)
network_input = network.get_inputs()[0].name
models = [(year["year"], year["thresholds"], load_session(arguments.models / year["directory"] / "model.onnx", 1)) for year in posters["years"]]
overall = posters["overall"]
overall = overall and (None, overall["thresholds"], load_session(arguments.models / overall["directory"] / "model.onnx", 1))
labels = posters["labels"]


def preprocess(content):
    """Returns the network's input (3, 260, 260) for an encoded image, or None if it cannot be decoded."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        return None
    height, width = image.shape[:2]
    side = min(height, width) * 260 // 292
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    image = cv2.resize(image[top : top + side, left : left + side], (260, 260), interpolation=cv2.INTER_CUBIC)
    return ((image[..., ::-1].astype(np.float32) - 127) / 128).transpose(2, 0, 1)


def run(items):
    """Returns the scores of all models for each item."""
    embeddings = network.run(None, {network_input: np.stack(items)})[0]
    scores = [model.run(None, {"features": embeddings})[0] for _, _, model in [*models, *([overall] if overall else [])]]
    return [[rows[i] for rows in scores] for i in range(len(items))]


def genres(scores, thresholds):
    ranked = np.argsort(-scores, kind="stable")
    return [{"label": labels[i], "score": float(scores[i]), "likely": bool(scores[i] >= thresholds[i])} for i in ranked]


decoders = concurrent.futures.ThreadPoolExecutor(CORES)
runner = concurrent.futures.ThreadPoolExecutor(1)
jobs_queue = asyncio.Queue(128)


async def run_batches():
    loop = asyncio.get_running_loop()
    while True:
        jobs = [await jobs_queue.get()]
        deadline = loop.time() + arguments.delay / 1000
        while len(jobs) < arguments.batch:
            try:
                jobs.append(await asyncio.wait_for(jobs_queue.get(), max(0, deadline - loop.time())))
            except asyncio.TimeoutError:
                break
        for (_, future), scores in zip(jobs, await loop.run_in_executor(runner, run, [item for item, _ in jobs])):
            if not future.done():
                future.set_result(scores)


@contextlib.asynccontextmanager
async def lifespan(app):
    app.state.batches = asyncio.create_task(run_batches())
    yield


app = fastapi.FastAPI(lifespan=lifespan)


@app.get("/healthz")
async def healthz():
    return {"status": "ok"}


@app.post("/api/predict")
async def predict(file: list[fastapi.UploadFile]):
    loop = asyncio.get_running_loop()
    results = []
    for upload in file:
        item = await loop.run_in_executor(decoders, preprocess, await upload.read())
        if item is None:
            return fastapi.responses.JSONResponse({"error": "the image cannot be decoded"}, 422)
        future = loop.create_future()
        try:
            jobs_queue.put_nowait((item, future))
        except asyncio.QueueFull:
            return fastapi.responses.JSONResponse({"error": "the server is busy"}, 503, {"Retry-After": "1"})
        scores = await future
        years = [{"year": year, "genres": genres(row, thresholds)} for (year, thresholds, _), row in zip(models, scores)]
        overall_genres = genres(scores[-1], overall[1]) if overall else []
        results.append({"name": upload.filename, "kind": "image", "years": years, "overall": overall_genres})
    return {"results": results, "model": {"method": posters["method"]}}


uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning", access_log=False)
