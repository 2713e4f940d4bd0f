"""The agent and what it is made of."""

from scalable_agent.networks.agent import LSTM_SIZE, Agent, AgentState
from scalable_agent.networks.encoders import make_torso
from scalable_agent.networks.normalisation import are_numbers, are_pixels
from scalable_agent.networks.torsos import find_torso, resolve

__all__ = (
  'LSTM_SIZE',
  'Agent',
  'AgentState',
  'are_numbers',
  'are_pixels',
  'find_torso',
  'make_torso',
  'resolve',
)
