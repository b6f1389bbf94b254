"""The greeting by FastAPI, with the fields that the worker hello-world has."""

from fastapi import FastAPI
from pydantic import BaseModel, Field


class Input(BaseModel):
    name: str = Field(min_length=1, max_length=200)


class Output(BaseModel):
    greeting: str


app = FastAPI()


@app.post("/invoke/greet/hello_world")
async def hello_world(given: Input) -> Output:
    return Output(greeting=f"Hello, {given.name.strip()}!")
