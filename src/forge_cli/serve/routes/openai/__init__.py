"""What OpenAI's clients speak: files, fine-tuning jobs, models and chats, over the same jobs."""

from fastapi import APIRouter

from forge_cli.serve.openai_form import ERRORS
from forge_cli.serve.relay import open_relay
from forge_cli.serve.routes.openai import chat, files, fine_tuning, models

router = APIRouter(prefix="/v1", tags=["openai"], responses=ERRORS, lifespan=open_relay)
for part in (files, fine_tuning, models, chat):
    router.include_router(part.router)
